// The line above the results: how many pictures there are, or what was searched: words, pictures, what is excluded, and
// whether nothing fits. Its
// tooltip says how many are loaded and how long the search took. Below the last result, a note if the server's limit cut the list.

import { getImage } from "../api/client.js";
import { formatList, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { parseQuery } from "../state/query.js";
import { getQuery } from "../state/url_state.js";
import { byId } from "./dom.js";
import { getName, hasName } from "./tile.js";

const searched = new Map(); // "collection/id" -> image, or null if there is none: pictures whose names headings say

/** Load the picture of a search by one picture. */
export async function loadSearchedPicture({ like }) {
  const key = makeKey(like);
  if (like.length === 1 && !searched.has(key)) searched.set(key, await getImage(like[0]).catch(() => null));
}

/** The record of a picture has changed, so headings say its new name. */
export function updateSearchedPicture(image) {
  const key = makeKey([image.id], image.collection);
  if (searched.has(key)) searched.set(key, image);
}

function makeKey([id], collection = currentCollection()) {
  return `${collection}/${id}`;
}

export function showResultCount(results, state) {
  const n = results.hits.length;
  byId("select").disabled = !n;
  byId("share").disabled = !n || !(results.isSearch || state.conditions.length) || Boolean(getQuery(state).file);
  byId("filter").disabled = !n && !results.isSearch && !state.conditions.length;
  byId("count").textContent = n ? describeResults(results, state) : "";
  byId("count").title = n ? describeLoaded(results) : "";
  byId("results").classList.toggle("unfit", n > 0 && isUnfit(results));
  const isCut = results.lastPage?.isCut && n > 0;
  byId("result-limit").hidden = !isCut;
  if (isCut) byId("result-limit").textContent = translate("result_limit", { n });
}

/** Whether the server found nothing that fits well: what is shown is the nearest. */
function isUnfit({ lastPage }) {
  return lastPage?.answer?.verdict?.match === "none";
}

function describeResults(results, state) {
  if (results.isSearch) return describeSearch(getQuery(state), isUnfit(results) ? "nothing_fits" : results.isList ? "taken_list" : state.sort ? "sorted_matches" : "best_matches");
  const n = results.total ?? results.hits.length;
  return n > 1 && state.conditions.length ? translate(state.sort ? "filtered_sorted" : "filtered", { n }) : translateCount("count_images", n);
}

function describeSearch(query, best) {
  const { words, without } = parseQuery(query.q);
  const similar = describePictures(query);
  let text = words && translate(best, { words });
  if (similar) text = words ? translate("similar_and", { similar, words }) : similar;
  if (query.target === "texts") text = translate("best_labels");
  if (!without.length) return text;
  const list = formatList(without.map((one) => `“${one}”`));
  return text ? translate("excluding", { text, list }) : translate("only_excluding", { list });
}

/** What the pictures of the search are, or null if it has none. */
function describePictures({ like, file }) {
  const n = like.length + (file ? 1 : 0);
  if (!n) return null;
  if (n > 1) return translate("similar_to_n", { n });
  if (file) return translate("similar_to", { name: file.name });
  const image = searched.get(makeKey(like));
  return image && hasName(image) ? translate("similar_to", { name: getName(image) }) : translate("most_similar");
}

function describeLoaded({ hits, total, lastPage }) {
  const n = hits.length;
  const { answer } = lastPage;
  if (!answer) return total === null ? "" : translate("listed_of", { n, total });
  return translate("found_of", { n, total: answer.searched, ms: Math.max(1, Math.round(answer.took_ms.total)) });
}
