// What the server says beside the results: what its model does not know, once for each data directory and model and always
// in the help, and the warnings about a search. The language of the page decides the sentence for a model or a warning.

import { getCollection, getModel } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { homeCollection } from "../state/collection_context.js";
import { byId, make } from "./dom.js";

const STORAGE_KEY = "sightline.model-notices"; // those that this browser has shown
const MAX_KEPT = 50;
const HINTS = { starter: "hint_starter", colours: "hint_colours" };
let model = null;
let loading = null;
let isNoticeDue = false;

/** Load what the model knows. The next call asks again until the model is in memory, and, of a model that does not know
 * photographs, until most pictures are some. */
export async function loadModel() {
  if (model && model.photographs !== false) return;
  const collection = () => getCollection(homeCollection()).catch(() => ({}));
  loading ??= Promise.all([getModel(), collection()]).catch(() => []);
  const [loaded, { created_at } = {}] = await loading;
  loading = null;
  if (!loaded || loaded.photographs === model?.photographs) return;
  model = loaded;
  const kind = model.photographs ? " photographs" : "";
  isNoticeDue = Boolean(model.hint) && rememberNotice(`${model.name} ${created_at}${kind}`); // when the data directory began
}

/** What the model does not know and what to do, as nodes, or null for a model without such a limit. */
export function describeModel() {
  if (!model?.hint) return null;
  if (!(model.name in HINTS)) return [model.hint];
  return [translate(HINTS[model.name]), " ", ...describeCommand()];
}

function describeCommand() {
  return [translate("hint_photos"), " ", make("code", {}, "sightline serve --data-dir photos --model photos")];
}

export function showModelNotice() {
  const notice = byId("model-notice");
  notice.hidden = !isNoticeDue;
  if (!isNoticeDue) return;
  const limit = model.name in HINTS ? translate(HINTS[model.name]) : model.hint;
  notice.querySelector("span").replaceChildren(...(model.photographs ? [translate("notice_photographs"), " ", ...describeCommand(), " "] : [limit]));
}

export function hideModelNotice() {
  byId("model-notice").hidden = true;
}

export function watchModelNotice() {
  byId("model-notice").querySelector("[data-label=close]").addEventListener("click", () => {
    isNoticeDue = false;
    hideModelNotice();
    byId("box").focus();
  });
  byId("help").addEventListener("beforetoggle", () => {
    byId("help-model").hidden = !model;
    if (!model) return;
    const limit = describeModel() ?? [];
    byId("help-model").querySelector("p").replaceChildren(translate("help_model", { name: model.name }), " ", ...limit);
  });
}

/** Whether this browser has not shown this notice before. */
function rememberNotice(key) {
  try {
    const shown = JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? [];
    if (shown.includes(key)) return false;
    localStorage.setItem(STORAGE_KEY, JSON.stringify([...shown, key].slice(-MAX_KEPT)));
  } catch {
    // a browser without storage shows the notice after each reload
  }
  return true;
}

/** `answer`: of a search, or null. */
export function showWarnings(answer) {
  const warnings = answer?.warnings ?? [];
  byId("warnings").hidden = !warnings.length;
  byId("warnings").replaceChildren(...warnings.map((warning) => make("li", {}, describeError(warning))));
}
