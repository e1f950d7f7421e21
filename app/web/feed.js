// Where results come from, page after page: the newest pictures by cursor, or a search with a growing k.
// `next(signal)` gives {items, done, answer}; an item is a hit, without a score when it is merely new.

import { listImages, search } from "./server.js";

const PAGE = 60;
const MOST = 1000; // the server's own limit of k unless its operator chose another

export function newest() {
  let cursor = null;
  return {
    async next(signal) {
      const page = await listImages(cursor, PAGE, signal);
      cursor = page.next_cursor;
      return { items: page.images.map((image) => ({ id: image.id, image })), done: !cursor, answer: null };
    },
  };
}

export function found(query) {
  const seen = new Set(query.like && query.target === "images" ? [query.like] : []);
  const itself = seen.size;
  let k = 0;
  return {
    async next(signal) {
      k = Math.min(k ? k * 2 : PAGE + itself, MOST);
      const answer = await search(query, k, signal);
      const items = answer.hits.filter((hit) => !seen.has(hit.id));
      items.forEach((hit) => seen.add(hit.id));
      return { items, done: answer.hits.length < k || k === MOST, answer };
    },
  };
}
