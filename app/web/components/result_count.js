// The line above the results: how many pictures there are, or what the results match. Its tooltip says how many are
// loaded and how long the search took. Below the last result, a note if the server's limit cut the list.

import { translate, translateCount } from "../i18n/i18n.js";
import { parseQuery } from "../state/query.js";
import { byId } from "./dom.js";

export function showResultCount(results, state) {
  const n = results.hits.length;
  byId("select").disabled = !n;
  byId("filter").disabled = !n && !results.isSearch && !state.conditions.length;
  byId("count").textContent = n ? describeResults(results, state) : "";
  byId("count").title = n ? describeLoaded(results) : "";
  const isCut = results.lastPage?.isCut && n > 0;
  byId("result-limit").hidden = !isCut;
  if (isCut) byId("result-limit").textContent = translate("result_limit", { n });
}

function describeResults(results, state) {
  const { words } = parseQuery(state.q);
  if (results.isSearch && state.target === "texts") return translate("best_labels");
  if (results.isSearch) return words ? translate("best_matches", { words }) : translate("most_similar");
  const n = results.total ?? results.hits.length;
  return n > 1 && state.conditions.length ? translate("filtered", { n }) : translateCount("count_images", n);
}

function describeLoaded({ hits, total, lastPage }) {
  const n = hits.length;
  const { answer } = lastPage;
  if (!answer) return total === null ? "" : translate("listed_of", { n, total });
  return translate("found_of", { n, total: answer.searched, ms: Math.max(1, Math.round(answer.took_ms.total)) });
}
