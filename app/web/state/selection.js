// Choosing many pictures: by their boxes, by shift-click, by keys. The bar at the foot says what can be done with them.
// The choice is by id, so that it outlives a new search.

import { MOST_LIKE } from "./url_state.js";
import { byId } from "../components/dom.js";
import { fillWords, words } from "../i18n/i18n.js";

const chosen = new Map(); // id -> hit
let choosing = false; // whether a click chooses, where there is no hover or shift
let anchor = null; // the id that a range begins at
let listen = () => {};

export function isChosen(id) {
  return chosen.has(id);
}

export function chosenHits() {
  return [...chosen.values()];
}

export function isChoosing() {
  return choosing || chosen.size > 0;
}

export function watchChoice({ changed, act }) {
  listen = changed;
  const bar = byId("chosen");
  byId("select").addEventListener("click", () => {
    if (isChoosing()) unchoose();
    else setChoosing(true);
  });
  bar.addEventListener("click", (event) => {
    const action = event.target.closest("[data-act]")?.dataset.act;
    if (action === "none") unchoose();
    else if (action) act(action);
  });
}

/** Choose a picture or let it go; with `range` everything from the last one to it. */
export function toggle(hits, n, range = false) {
  const from = range ? hits.findIndex((hit) => hit.id === anchor) : -1;
  const hit = hits[n];
  if (!hit) return;
  if (from >= 0) {
    const between = hits.slice(Math.min(from, n), Math.max(from, n) + 1);
    between.forEach((one) => chosen.set(one.id, one));
    told(between.map(({ id }) => id));
    return;
  }
  anchor = hit.id;
  if (!chosen.delete(hit.id)) chosen.set(hit.id, hit);
  told([hit.id]);
}

export function chooseAll(hits) {
  hits.forEach((hit) => chosen.set(hit.id, hit));
  told(hits.map(({ id }) => id));
}

export function unchoose(ids = [...chosen.keys()]) {
  ids.forEach((id) => chosen.delete(id));
  if (!chosen.size) setChoosing(false);
  told(ids);
}

export function showChoice() {
  const n = chosen.size;
  byId("chosen").hidden = !n;
  byId("chosen-count").textContent = words("chosen", { n });
  byId("select").ariaPressed = String(isChoosing());
  document.body.classList.toggle("choosing", isChoosing());
  const like = byId("chosen").querySelector("[data-act=like]");
  like.disabled = n > MOST_LIKE;
  like.title = n > MOST_LIKE ? words("too_many_like", { n: MOST_LIKE }) : "";
  fillWords(byId("chosen"));
}

function setChoosing(on) {
  choosing = on;
  showChoice();
}

function told(ids) {
  showChoice();
  listen(ids);
}
