// Three things to try, above the pictures of a newcomer: until the person closes them, or has searched and comes
// again.

import { byId } from "./dom.js";

const STORAGE_KEY = "sightline.steps";
let isNew = read();

function read() {
  try {
    return localStorage.getItem(STORAGE_KEY) !== "off";
  } catch {
    return false; // what cannot be closed for good is not shown
  }
}

function remember() {
  try {
    localStorage.setItem(STORAGE_KEY, "off");
  } catch {
    // a browser without storage
  }
}

export function watchFirstSteps() {
  byId("steps").querySelector("[data-close-steps]").addEventListener("click", () => {
    isNew = false;
    byId("steps").hidden = true;
    remember();
    byId("box").focus();
  });
}

/** Show or hide them for the first page of a list. */
export function showFirstSteps(results, state) {
  if (results.isSearch && isNew) remember();
  byId("steps").hidden = !isNew || results.isSearch || !results.hits.length || state.conditions.length > 0 || state.target === "texts";
}
