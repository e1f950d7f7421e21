// Completes tags and metadata while the user types: what the newest pictures of the collection have, loaded when a field that
// completes them gets the focus.

import { listImages } from "../api/client.js";
import { currentCollection } from "../state/collection_context.js";
import { byId } from "./dom.js";

const SAMPLE = 1000; // pictures
const FRESH_MS = 30_000;
const MAX_SUGGESTIONS = 500;
let images = []; // of the sample
let loaded = { collection: null, at: 0 };

/** `nameField`: its metadata name decides which values are suggested. */
export function watchSuggestions(nameField) {
  const suggestMetadata = () => suggest("known-values", images.flatMap(({ metadata }) => metadata[nameField.value.trim()] ?? []));
  document.addEventListener("focusin", async ({ target }) => {
    if (!target.list?.id.startsWith("known-") || isFresh()) return;
    loaded = { collection: currentCollection(), at: Date.now() };
    images = await listImages(null, SAMPLE).then((page) => page.images, () => []);
    suggest("known-tags", images.flatMap(({ tags }) => tags));
    suggest("known-names", images.flatMap(({ metadata }) => Object.keys(metadata)));
    suggestMetadata();
  });
  nameField.addEventListener("change", suggestMetadata);
}

function isFresh() {
  return loaded.collection === currentCollection() && Date.now() - loaded.at < FRESH_MS;
}

/** Suggest the most frequent values first. */
function suggest(id, values) {
  const counts = new Map();
  for (const value of values) if (Object(value) !== value && value !== "") counts.set(value, (counts.get(value) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, MAX_SUGGESTIONS);
  byId(id).replaceChildren(...sorted.map(([value]) => new Option(value, value)));
}
