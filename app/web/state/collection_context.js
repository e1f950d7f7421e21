// The collection that the page shows. Every request names it; an address without a name means the home collection,
// which is `default` unless the key of this browser is limited to other collections.

export const DEFAULT = "default";
export const COLLECTION_NAME = /^[a-z0-9_-]{1,64}$/;
let home = DEFAULT;
let current = DEFAULT;

export function currentCollection() {
  return current;
}

export function setCurrentCollection(name) {
  current = name;
}

export function homeCollection() {
  return home;
}

/** `allowed`: the names of the collections that the key may use, or null for all. */
export function setHomeCollection(allowed) {
  home = !allowed?.length || allowed.includes(DEFAULT) ? DEFAULT : allowed[0];
}

/** Add the collection to the path of a request. */
export function withCollection(path, collection = current) {
  if (collection === DEFAULT) return path;
  return `${path}${path.includes("?") ? "&" : "?"}collection=${collection}`;
}
