// The line above the results when something is in the way, and the waiting until it is not.
// Only one wait runs at a time; `clear` ends it.

import { byId } from "./dom.js";
import { isLoaded } from "../api/client.js";
import { words } from "../i18n/i18n.js";

const STEP = 1000;
const LONGEST = 5000; // between two looks at a server that does not answer: a browser logs each
let timer = 0;

export function clear() {
  clearTimeout(timer);
  timer = 0;
  byId("notice").hidden = true;
}

export function tell(text, kind = "plain") {
  clear();
  const place = byId("notice");
  place.className = kind;
  place.textContent = text;
  place.hidden = false;
}

export function tellProblem(problem, again, key = "refused") {
  if (problem.code === "away") waitFor(isAlive, words("away"), "away", again);
  else if (problem.code === "model_unavailable") notLoaded(problem, again);
  else if (problem.status === 503 || problem.status === 429) {
    tell(words("busy"), "busy");
    timer = setTimeout(again, problem.seconds * STEP);
  } else tell(words(key, { detail: problem.detail || problem.status }), "refused");
}

export async function checkReady(again) {
  const loaded = await isLoaded().catch(() => true);
  if (!loaded) waitFor(isLoaded, words("loading"), "loading", again);
}

async function notLoaded(problem, again) {
  const mine = (timer = setTimeout(again, LONGEST));
  const loaded = await isLoaded().catch(() => false);
  if (mine !== timer) return;
  if (!loaded) return waitFor(isLoaded, words("loading"), "loading", again);
  tell(words("refused", { detail: problem.detail }), "refused"); // it is there, and yet cannot be asked
  timer = setTimeout(again, 3 * STEP);
}

function waitFor(ready, text, kind, again) {
  tell(text, kind);
  let wait = STEP;
  const ask = async () => {
    const mine = timer;
    const is = await ready().catch(() => null);
    if (mine !== timer) return;
    if (is) {
      clear();
      again();
      return;
    }
    if (is === null) wait = Math.min(wait * 1.5, LONGEST);
    timer = setTimeout(ask, wait);
  };
  timer = setTimeout(ask, wait);
}

async function isAlive() {
  return (await fetch("livez", { cache: "no-store" })).ok || null;
}
