// The pictures that the user has selected: by their check marks, with Shift and click, or by keys.
// The selection goes by id, so it survives a new search.

const selected = new Map(); // id -> hit
const listeners = [];
let isModeOn = false; // a click selects; for devices without hover or Shift
let anchor = null; // the id where a range starts

export function isSelected(id) {
  return selected.has(id);
}

export function selectedHits() {
  return [...selected.values()];
}

export function isSelecting() {
  return isModeOn || selected.size > 0;
}

export function onSelectionChange(listener) {
  listeners.push(listener);
}

/** Select or deselect one picture; with `isRange` select everything from the last one to it. */
export function toggleSelected(hits, n, isRange = false) {
  const hit = hits[n];
  if (!hit) return;
  const from = isRange ? hits.findIndex(({ id }) => id === anchor) : -1;
  if (from >= 0) return selectAll(hits.slice(Math.min(from, n), Math.max(from, n) + 1));
  anchor = hit.id;
  if (!selected.delete(hit.id)) selected.set(hit.id, hit);
  notifyListeners();
}

export function selectAll(hits) {
  hits.forEach((hit) => selected.set(hit.id, hit));
  notifyListeners();
}

export function deselect(ids = [...selected.keys()]) {
  ids.forEach((id) => selected.delete(id));
  if (!selected.size) isModeOn = false;
  notifyListeners();
}

export function startSelecting() {
  isModeOn = true;
  notifyListeners();
}

function notifyListeners() {
  listeners.forEach((listener) => listener());
}
