// Shows the results as a grid of pictures or a list of texts, depending on the target of the search,
// or a message if there are none.

import { byId, make } from "../components/dom.js";
import { Grid } from "../components/grid.js";
import { hasSecondLine, makeTextLines, makeTile } from "../components/tile.js";
import { translate } from "../i18n/i18n.js";
import { findFitLine } from "../state/fit_line.js";
import { isSelected } from "../state/selection.js";

let grid = null;
let shown = null; // {hits, state, best, count, line}

/** With `isContinued` the hits begin with those that are shown. `verdict`: of a search. */
export function showHits(hits, state, { isComplete, isContinued = false, verdict = null }) {
  const previous = isContinued ? shown : null;
  const best = previous ? previous.best : (hits[0]?.score ?? 1); // all pages compare with the best score of the first
  shown = { hits, state, best, count: hits.length, line: previous?.line ?? makeFitLine(hits, state, verdict, previous?.count) };
  if (state.target === "texts") showTexts(hits, previous?.count ?? 0, best);
  else {
    if (!grid) {
      clearResults();
      grid = new Grid(byId("results"), {
        makeCell: (hit) => makeTile(hit, { state: shown.state, isSelected: isSelected(hit.id) }),
        hasSecondLine,
      });
    }
    grid.show(hits, isComplete, { keepCells: isContinued, line: shown.line });
    previous?.hits.forEach(({ moments }, n) => moments !== hits[n]?.moments && grid.redraw(n)); // more of a video came
  }
}

/** The line below the hits that fit, {at, element}; null if there is none, or it would be among those shown before. */
function makeFitLine(hits, state, verdict, shownBefore = 0) {
  const at = findFitLine(hits, verdict, state);
  return at === null || at < shownBefore ? null : { at, element: make("li", { className: "fit-line" }, translate("fit_line")) };
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
