// What the server says beside the results: what its model knows, until the user closes that, and the warnings about a
// search. A sentence in the language of the page comes from the name of the model or the code of the warning.

import { getModel } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { byId, make } from "./dom.js";

const STORAGE_KEY = "sightline.model-notice"; // the model whose notice the user has closed
const HINTS = { starter: "hint_starter", colours: "hint_colours" };
let model = null;
let loading = null;

/** Load once what the model knows; until the model is in memory, the next call asks again. */
export async function loadModel() {
  if (model) return;
  loading ??= getModel().catch(() => null);
  model = await loading;
  if (!model) loading = null;
}

/** What the model does not know and what to do, or null for a model without such a limit. */
export function describeModel() {
  if (!model?.hint) return null;
  return model.name in HINTS ? translate(HINTS[model.name]) : model.hint;
}

export function showModelNotice() {
  const text = describeModel();
  const notice = byId("model-notice");
  notice.hidden = !text || readClosed() === model.name;
  if (!notice.hidden) notice.querySelector("span").textContent = text;
}

export function hideModelNotice() {
  byId("model-notice").hidden = true;
}

export function watchModelNotice() {
  byId("model-notice").querySelector("button").addEventListener("click", () => {
    hideModelNotice();
    byId("box").focus();
    try {
      localStorage.setItem(STORAGE_KEY, model.name);
    } catch {
      // a browser without storage shows the notice again after a reload
    }
  });
}

/** `answer`: of a search, or null. */
export function showWarnings(answer) {
  const warnings = answer?.warnings ?? [];
  byId("warnings").hidden = !warnings.length;
  byId("warnings").replaceChildren(...warnings.map((warning) => make("li", {}, describeError(warning))));
}

function readClosed() {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null;
  }
}
