// The line above the results: how many there are, of how many, and how long the search took.
// Below the last result, a note if the server's limit cut the list.

import { translate, translateCount } from "../i18n/i18n.js";
import { byId } from "./dom.js";

export function showResultCount(results, state) {
  const n = results.hits.length;
  byId("select").disabled = !n;
  byId("count").textContent = n ? describeCount(results, state) : "";
  byId("score-help").hidden = !(results.isSearch && n);
  const isCut = results.lastPage?.isCut && n > 0;
  byId("result-limit").hidden = !isCut;
  if (isCut) byId("result-limit").textContent = translate("result_limit", { n });
}

function describeCount(results, state) {
  const { answer } = results.lastPage ?? {};
  const n = results.hits.length;
  if (!answer && state.conditions.length) return translateCount(results.isDone ? "filtered_all" : "filtered", n);
  if (!answer) return results.isDone ? translateCount("newest_all", n) : translate("newest", { n });
  const ms = Math.max(1, Math.round(answer.took_ms.total));
  return translate(state.target === "images" ? "found_images" : "found_texts", { n, searched: answer.searched, ms });
}
