// The results of one search: what its pager has loaded so far, without deleted pictures.
// A small cache keeps the latest lists, so that Back shows the earlier results at once and at the same place.

import { isDeleted } from "./deletions.js";
import { collapseVideos } from "./moments.js";

const CACHED = 8;
const cache = new Map(); // key -> ResultList, the latest last

export class ResultList {
  #items = [];
  #failed = [];
  lastPage = null;
  isDone = false;

  /** `loadPage` comes from pager.js, or is null for a list that stays empty. */
  constructor(key, loadPage = null, isSearch = false) {
    Object.assign(this, { key, loadPage, isSearch });
  }

  get hits() {
    return collapseVideos(this.#items.filter((hit) => !isDeleted(hit.id)));
  }

  /** The files among them that the server could not read. */
  get failed() {
    return this.#failed.filter(({ id }) => !isDeleted(id));
  }

  /** How many pictures the whole list has, or null. */
  get total() {
    const { total = null } = this.lastPage ?? {};
    return total === null ? null : total - this.#failed.length - this.#items.filter((hit) => isDeleted(hit.id)).length;
  }

  get facets() {
    return this.lastPage?.facets ?? null;
  }

  /** The words of time that were a condition of the search, {text, from, to}, or null. */
  get time() {
    return this.lastPage?.answer?.applied.time ?? null;
  }

  /** Whether there are no other words, so that no hit has a rank. */
  get isList() {
    const ranks = this.time && this.lastPage.answer.hits[0]?.ranks;
    return Boolean(ranks) && !ranks.vector && !ranks.keyword;
  }

  get isStarted() {
    return this.lastPage !== null;
  }

  async loadMore(signal, wanted) {
    this.lastPage = await this.loadPage(signal, wanted - this.#items.length);
    this.isDone = this.lastPage.isLast;
    this.#items.push(...this.lastPage.items);
    this.#failed.push(...(this.lastPage.failed ?? []));
  }

  replaceImage(image) {
    for (const hit of this.#items) if (hit.id === image.id && hit.image?.collection === image.collection) hit.image = image;
  }
}

export function cacheResults(results) {
  cache.delete(results.key);
  cache.set(results.key, results);
  if (cache.size > CACHED) cache.delete(cache.keys().next().value);
}

/** The cached results of a search, or null; an aborted search has none to show. */
export function findCached(key) {
  const results = cache.get(key);
  return results?.isStarted ? results : null;
}

export function clearCache() {
  cache.clear();
}

export function replaceImageInCache(image) {
  cache.forEach((results) => results.replaceImage(image));
}
