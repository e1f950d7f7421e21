// Shows the results as a grid of pictures or a list of texts, depending on the target of the search,
// or a message if there are none.

import { byId, make } from "../components/dom.js";
import { Grid } from "../components/grid.js";
import { hasSecondLine, makeTextLines, makeTile } from "../components/tile.js";
import { isSelected } from "../state/selection.js";

let grid = null;
let shown = null; // {hits, state, best, count}

/** With `isContinued` the hits begin with those that are shown. */
export function showHits(hits, state, { isComplete, isContinued = false }) {
  const previous = isContinued ? shown : null;
  const best = previous ? previous.best : (hits[0]?.score ?? 1); // all pages compare with the best score of the first
  shown = { hits, state, best, count: hits.length };
  if (state.target === "texts") showTexts(hits, previous?.count ?? 0, best);
  else {
    if (!grid) {
      clearResults();
      grid = new Grid(byId("results"), {
        makeCell: (hit) => makeTile(hit, { state: shown.state, isSelected: isSelected(hit.id) }),
        hasSecondLine,
      });
    }
    grid.show(hits, isComplete, isContinued);
    previous?.hits.forEach(({ moments }, n) => moments !== hits[n]?.moments && grid.redraw(n)); // more of a video came
  }
}

/** `lines`: strings, nodes, or null to leave one out. */
export function showMessage(title, ...lines) {
  clearResults();
  shown = null;
  const paragraphs = lines.filter(Boolean).map((line) => (line instanceof Node ? line : make("p", {}, line)));
  const message = make("div", { className: "message" }, make("h2", {}, title), ...paragraphs);
  byId("results").replaceChildren(message);
  return message;
}

export function clearResults() {
  grid?.close();
  grid = null;
  byId("results").replaceChildren();
}

export function redrawTile(id) {
  const n = shown?.hits.findIndex((hit) => hit.id === id) ?? -1;
  if (n >= 0) grid?.redraw(n);
}

export function showSelected() {
  for (const item of byId("results").querySelectorAll(".cell")) {
    const isOn = isSelected(item.querySelector("a").dataset.id);
    item.classList.toggle("selected", isOn);
    item.querySelector(".pick").ariaPressed = String(isOn);
  }
}

/** The grid of pictures, or null if something else is shown. */
export function currentGrid() {
  return grid;
}

function showTexts(hits, shownBefore, best) {
  let list = byId("results").querySelector(".list");
  if (!shownBefore || !list) {
    clearResults();
    list = make("ol", { className: "list" });
    byId("results").replaceChildren(list);
  }
  list.append(...makeTextLines(hits.slice(shownBefore), best));
}
