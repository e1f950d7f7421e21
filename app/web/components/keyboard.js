// The keyboard: keys of the whole page, and of the grid while a picture in it has the focus.
// Keys that are a single character can be switched off in the list of keys, for those who speak to their computer.

import { byId, closeBeside } from "./dom.js";

const KEPT = "sightline.keys";
const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

export function singleKeys() {
  try {
    return localStorage.getItem(KEPT) !== "off";
  } catch {
    return true;
  }
}

export function watchKeys(acts) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const done = event.target.closest?.(".tile") ? inGrid(event, acts) || anywhere(event, acts) : anywhere(event, acts);
    if (done) event.preventDefault();
  });
  watchHelp();
}

function anywhere(event, acts) {
  const { key } = event;
  const control = event.ctrlKey || event.metaKey;
  const writing = event.target.closest?.("input:not([type=radio], [type=checkbox], [type=range]), textarea");
  if (key === "Escape") return acts.escape(event.target);
  if (key === "ArrowDown" && event.target.id === "box") return acts.enterGrid();
  if (writing) return false;
  if (control && key.toLowerCase() === "z") return acts.undo();
  if (control || event.altKey) return false;
  if (key === "Delete") return acts.remove(null);
  if (!singleKeys()) return false;
  if (key === "/") return acts.search();
  if (key === "?") return acts.help();
  return false;
}

function inGrid(event, acts) {
  const { key } = event;
  const { id } = event.target.dataset;
  const control = event.ctrlKey || event.metaKey;
  if (ARROWS.includes(key) && !control && !event.altKey) return acts.move(key, event.shiftKey);
  if (control && key.toLowerCase() === "a") return acts.chooseAll();
  if (control || event.altKey) return false;
  if (key === " ") return acts.choose(id, event.shiftKey);
  if (key === "Delete") return acts.remove(id);
  if (singleKeys() && key.toLowerCase() === "l") return acts.like(id);
  return false;
}

function watchHelp() {
  const dialog = byId("help");
  const box = byId("single-keys");
  box.checked = singleKeys();
  box.addEventListener("change", () => {
    try {
      localStorage.setItem(KEPT, box.checked ? "on" : "off");
    } catch {
      // a browser that keeps nothing forgets it with the page
    }
  });
  for (const opener of ["help-button", "scores"]) byId(opener).addEventListener("click", () => dialog.showModal());
  byId("add").addEventListener("click", () => byId("adding").showModal());
  for (const one of [dialog, byId("adding")]) {
    closeBeside(one);
    one.addEventListener("click", (event) => event.target.closest("[data-close]") && one.close());
  }
}
