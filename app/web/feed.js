// Where results come from, page after page: the newest pictures by cursor, or a search with a growing k.
// `next(signal, wanted)` gives {items, done, answer}; an item is a hit, without a score when it is merely new.

import { listImages, search } from "./server.js";

const PAGE = 60;
export const MOST = 1000; // the server's own limit of k unless its operator chose another

export function newest() {
  let cursor = null;
  const seen = new Set(); // a picture added meanwhile does not shift a page, one replaced may come again
  return {
    async next(signal, wanted = PAGE) {
      const page = await listImages(cursor, Math.min(Math.max(wanted, PAGE), MOST), signal);
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
      k = Math.min(k ? k * 2 : Math.max(wanted, PAGE) + itself, MOST);
      const answer = await search(query, k, signal);
      const items = answer.hits.filter((hit) => !seen.has(hit.id));
      items.forEach((hit) => seen.add(hit.id));
      const all = answer.hits.length < k;
      return { items, done: all || k === MOST, answer, cut: !all && k === MOST };
    },
  };
}
