// The line above the results when something is in the way, and the waiting until it is not.
// Only one wait runs at a time; `clear` ends it.

import { byId } from "./element.js";
import { words } from "./words.js";

const STEP = 1000;
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
  if (problem.code === "away") waitFor("livez", words("away"), "away", again);
  else if (problem.code === "model_unavailable") waitFor("readyz", words("loading"), "loading", again);
  else if (problem.status === 503 || problem.status === 429) {
    tell(words("busy"), "busy");
    timer = setTimeout(again, problem.seconds * STEP);
  } else tell(words(key, { detail: problem.detail || problem.status }), "refused");
}

export async function checkReady(again) {
  const answer = await fetch("readyz").catch(() => null);
  if (answer?.status === 503) waitFor("readyz", words("loading"), "loading", again);
}

function waitFor(path, text, kind, again) {
  tell(text, kind);
  const ask = async () => {
    const mine = timer;
    const answer = await fetch(path, { cache: "no-store" }).catch(() => null);
    if (mine !== timer) return;
    if (answer?.ok) {
      clear();
      again();
      return;
    }
    await explain(answer, text);
    if (mine === timer) timer = setTimeout(ask, STEP);
  };
  timer = setTimeout(ask, STEP / 4);
}

async function explain(answer, text) {
  const body = answer?.status === 503 ? await answer.json().catch(() => null) : null;
  const reasons = body?.reasons?.join("; ");
  const place = byId("notice");
  const said = reasons ? `${text} (${reasons})` : text;
  if (place.textContent !== said) place.textContent = said;
}
