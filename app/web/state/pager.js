// Where results come from, page after page: the newest pictures by cursor, or a search with a growing k.
// `next(signal, wanted)` gives {items, done, answer}; an item is a hit, without a score when it is merely new.

import { listImages, mostHits, search } from "../api/client.js";

const PAGE = 60;
const MOST = 1000; // of one page of the newest

export function newest(filter = null) {
  let cursor = null;
  const seen = new Set(); // a picture added meanwhile does not shift a page, one replaced may come again
  return {
    async next(signal, wanted = PAGE) {
      const page = await listImages(cursor, Math.min(Math.max(wanted, PAGE), MOST), filter, signal);
      cursor = page.next_cursor;
      const items = page.images.map((image) => ({ id: image.id, image })).filter(({ id }) => !seen.has(id));
      items.forEach((item) => seen.add(item.id));
      return { items, done: !cursor, answer: null };
    },
  };
}

export function found(query) {
  const seen = new Set(query.target === "images" ? query.like : []);
  const itself = seen.size;
  let k = 0;
  return {
    async next(signal, wanted = PAGE) {
      const more = k ? k * 2 : Math.max(wanted, PAGE) + itself;
      const answer = await search(query, more, signal);
      k = Math.min(more, mostHits());
      const items = answer.hits.filter((hit) => !seen.has(hit.id));
      items.forEach((hit) => seen.add(hit.id));
      const all = answer.hits.length < k;
      const last = k === mostHits();
      return { items, done: all || last, answer, cut: !all && last };
    },
  };
}
