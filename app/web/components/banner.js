// The line above the results that reports a problem, and retries once the server is ready again.
// Only one retry waits at a time; `clearBanner` ends it.

import { getModel, isAlive } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { byId } from "./dom.js";

const FIRST_WAIT_MS = 1000;
const MAX_WAIT_MS = 5000; // a browser logs every failed request, so the page does not ask more often
let timer = 0;

export function clearBanner() {
  clearTimeout(timer);
  timer = 0;
  byId("banner").hidden = true;
}

/** `kind`: the CSS class, one of "plain", "busy", "loading", "no_answer" and "refused". */
export function showBanner(text, kind = "plain") {
  clearBanner();
  const banner = byId("banner");
  banner.className = kind;
  banner.textContent = text;
  banner.hidden = false;
}

/** Report a problem, and call `retry()` when the server can answer again. */
export function showProblem(problem, retry, key = "refused") {
  if (problem.code === "no_answer") waitUntil(isAlive, "no_answer_retrying", "no_answer", retry);
  else if (problem.code === "model_unavailable") waitForModel(problem, retry);
  else if (problem.status === 503 || problem.status === 429) {
    showBanner(translate("busy"), "busy");
    timer = setTimeout(retry, problem.seconds * 1000);
  } else showRefusal(problem, key);
}

function showRefusal(problem, key) {
  const detail = problem.detail ? describeError(problem) : String(problem.status);
  showBanner(problem.code === "not_found" && key === "refused" ? detail : translate(key, { detail }), "refused");
}

async function isModelLoaded() {
  return (await getModel()) !== null;
}

export async function waitUntilReady(retry) {
  const isLoaded = await isModelLoaded().catch(() => true);
  if (!isLoaded) waitUntil(isModelLoaded, "loading", "loading", retry);
}

async function waitForModel(problem, retry) {
  const started = (timer = setTimeout(retry, MAX_WAIT_MS));
  const isLoaded = await isModelLoaded().catch(() => false);
  if (started !== timer) return;
  if (!isLoaded) return waitUntil(isModelLoaded, "loading", "loading", retry);
  showRefusal(problem, "refused"); // loaded, and still the server refuses
  timer = setTimeout(retry, 3 * FIRST_WAIT_MS);
}

/** `isReady()` gives true, false to ask again soon, or null (or throws) to ask again more rarely. */
function waitUntil(isReady, key, kind, retry) {
  showBanner(translate(key), kind);
  let wait = FIRST_WAIT_MS;
  const check = async () => {
    const started = timer;
    const answer = await isReady().catch(() => null);
    if (started !== timer) return;
    if (answer) {
      clearBanner();
      retry();
      return;
    }
    if (answer === null) wait = Math.min(wait * 1.5, MAX_WAIT_MS);
    timer = setTimeout(check, wait);
  };
  timer = setTimeout(check, wait);
}
