// What stands where results are: a grid of pictures, a list of texts, or a quiet message.
// The grid is told apart from the list by what the search aims at.

import { byId, make } from "../components/dom.js";
import { Grid } from "../components/grid.js";
import { isChosen } from "../state/selection.js";
import { cell, textLines } from "../components/tile.js";

let grid = null;
let shown = null; // {hits, state, best}

export function drawHits(hits, state, { done, kept = false }) {
  const best = kept && shown ? shown.best : (hits[0]?.score ?? 1); // later pages are measured by the first
  const before = kept && shown ? shown.count : 0;
  shown = { hits, state, best, count: hits.length };
  if (state.target === "texts") drawTexts(hits, before, best);
  else {
    if (!grid) {
      clear();
      grid = new Grid(byId("results"), (hit) => cell(hit, { ...shown, chosen: isChosen(hit.id) }));
    }
    grid.show(hits, done, kept);
  }
}

export function drawMessage(title, ...lines) {
  clear();
  shown = null;
  const rest = lines.filter(Boolean).map((line) => (line instanceof Node ? line : make("p", {}, line)));
  const message = make("div", { className: "message" }, make("h2", {}, title), ...rest);
  byId("results").replaceChildren(message);
  return message;
}

export function clear() {
  grid?.close();
  grid = null;
  byId("results").replaceChildren();
}

/** Draw these pictures again, as far as they are on the page. */
export function redraw(ids) {
  const wanted = new Set(ids);
  shown?.hits.forEach((hit, n) => wanted.has(hit.id) && grid?.redraw(n));
}

/** Show which pictures are chosen now. */
export function mark() {
  for (const item of byId("results").querySelectorAll(".cell")) {
    const chosen = isChosen(item.querySelector("a").dataset.id);
    item.classList.toggle("chosen", chosen);
    item.querySelector(".pick").ariaPressed = String(chosen);
  }
}

export function currentGrid() {
  return grid;
}

function drawTexts(hits, before, best) {
  let list = byId("results").querySelector(".list");
  if (!before || !list) {
    clear();
    list = make("ol", { className: "list" });
    byId("results").replaceChildren(list);
  }
  list.append(...textLines(hits.slice(before), best));
}
