// The running list: a feed, what it has given so far, and which of it is still there.
// The last few are kept, so that Back finds its results, and its place among them, without asking again.

import { isGone } from "./deletions.js";

const KEPT = 8;
const kept = new Map(); // key -> Listing, the latest last

export class Listing {
  #all = [];

  constructor(key, feed, asked) {
    Object.assign(this, { key, feed, asked, last: null, done: false });
  }

  /** What is still there. */
  get hits() {
    return this.#all.filter((hit) => !isGone(hit.id));
  }

  get begun() {
    return this.last !== null;
  }

  async more(signal, wanted) {
    const page = await this.feed.next(signal, wanted - this.#all.length);
    this.last = page;
    this.done = page.done;
    this.#all.push(...page.items);
  }

  change(image) {
    for (const hit of this.#all) if (hit.id === image.id && hit.image?.collection === image.collection) hit.image = image;
  }
}

export function keep(listing) {
  kept.delete(listing.key);
  kept.set(listing.key, listing);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

export function keptOf(key) {
  return kept.get(key) ?? null;
}

export function forgetAll() {
  kept.clear();
}

export function changeEverywhere(image) {
  kept.forEach((listing) => listing.change(image));
}
