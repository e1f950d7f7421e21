// What the line above the results says of them: how many there are, of how many, how long the search took.
// Below the last of them stands why there are no more, where the server gives only so many.

import { byId } from "./dom.js";
import { counted, words } from "../i18n/i18n.js";

export function showTally(listing, state) {
  const n = listing.hits.length;
  byId("select").disabled = !n;
  byId("count").textContent = n ? summed(listing, state) : "";
  byId("scores").hidden = !(listing.asked && n);
  const cut = listing.last?.cut && n > 0;
  byId("cut").hidden = !cut;
  if (cut) byId("cut").textContent = words("cut", { n });
}

function summed(listing, state) {
  const { answer } = listing.last ?? {};
  const n = listing.hits.length;
  if (!answer && state.only.length) return counted(listing.done ? "filtered_all" : "filtered", n);
  if (!answer) return listing.done ? counted("newest_all", n) : words("newest", { n });
  const ms = Math.max(1, Math.round(answer.took_ms.total));
  return words(state.target === "images" ? "found_images" : "found_texts", { n, searched: answer.searched, ms });
}
