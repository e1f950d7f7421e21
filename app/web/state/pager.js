// Loads results page by page: the newest pictures by cursor, or a search with a growing k.
// `loadPage(signal, wanted)` gives {items, failed, isLast, isCut, answer, total}; an item without a score does not come
// from a search. `failed`: files that the server could not read. `total`: of both in the whole list, null for a search.
// `facets`: how many pictures have each value: of the whole list, or of the first page of a search.

import { hitLimit, listImages, search } from "../api/client.js";

const PAGE = 60;
const MAX_PAGE = 1000; // of the newest pictures
const MAX_TAGS = 6; // counted of a search

export function pageNewest(query = {}) {
  let cursor = null;
  let total = null;
  let facets = null;
  const seen = new Set(); // a picture that the server replaced meanwhile appears a second time
  return async (signal, wanted = PAGE) => {
    const page = await listImages(cursor, Math.min(Math.max(wanted, PAGE), MAX_PAGE), query, signal);
    total ??= page.total;
    facets ??= page.facets;
    cursor = page.next_cursor;
    const found = page.images.map((image) => ({ id: image.id, image })).filter(({ id }) => !seen.has(id));
    found.forEach(({ id }) => seen.add(id));
    const failed = found.filter(({ image }) => image.status === "failed");
    const items = found.filter((hit) => !failed.includes(hit));
    return { items, failed, isLast: !cursor, isCut: false, answer: null, total, facets };
  };
}

export function pageSearch(query) {
  const seen = new Set(query.target === "images" ? query.like : []); // a search by a picture also finds that picture
  const excluded = seen.size;
  let k = 0;
  let facets = null;
  return async (signal, wanted = PAGE) => {
    const nextK = k ? k * 2 : Math.max(wanted, PAGE) + excluded;
    const answer = await search(query, nextK, signal);
    k = Math.min(nextK, hitLimit());
    const items = answer.hits.filter((hit) => !seen.has(hit.id));
    items.forEach((hit) => seen.add(hit.id));
    const isComplete = answer.hits.length < k;
    const isCut = !isComplete && k === hitLimit();
    facets ??= { tags: countTags(items), total: items.length };
    return { items, isLast: isComplete || isCut, isCut, answer, total: null, facets };
  };
}

/** The most frequent tags of some hits. A server would count all pictures: every one is a hit of a search by vectors. */
function countTags(hits) {
  const counts = new Map();
  for (const tag of hits.flatMap(({ image }) => image?.tags ?? [])) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const sorted = [...counts].sort(([, one], [, other]) => other - one).slice(0, MAX_TAGS);
  return sorted.map(([value, count]) => ({ value, count }));
}
