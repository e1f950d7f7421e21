// The collection that is shown, which every call of the page carries. `default` needs no word in an address.
// A key may be good for some collections only: `home` is where an address leads that names none.

export const DEFAULT = "default";
export const NAME = /^[a-z0-9_-]{1,64}$/;
let home = DEFAULT;
let now = DEFAULT;

export function here() {
  return now;
}

export function goTo(name) {
  now = name;
}

export function homeOf() {
  return home;
}

/** `bound`: the collections that the key of this browser is good for, null for all. */
export function settle(bound) {
  home = !bound?.length || bound.includes(DEFAULT) ? DEFAULT : bound[0];
}

/** The path of a call with its collection as a parameter. */
export function within(path, collection = now) {
  if (collection === DEFAULT) return path;
  return `${path}${path.includes("?") ? "&" : "?"}collection=${collection}`;
}
