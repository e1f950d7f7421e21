// How the results are arranged: the menu of orders, the switch that shows one of each group of similar pictures, links
// that narrow the results by their most frequent tags, formats and years, and chips that end the feedback on pictures and
// the condition that words of time are.

import { formatDays, translate, translateCount } from "../i18n/i18n.js";
import { getQuery, makeHref, SORTS } from "../state/url_state.js";
import { byId, make } from "./dom.js";

const JUDGED = ["liked", "unliked"];

/** `onChange(change)` takes the change of the state. */
export function watchArrangement({ getState, onChange }) {
  byId("sort").addEventListener("change", () => onChange({ sort: byId("sort").value }));
  byId("group").addEventListener("click", () => onChange({ isGrouped: !getState().isGrouped }));
  byId("feedback").addEventListener("click", (event) => {
    const kind = event.target.closest("button")?.dataset.kind;
    if (!kind) return;
    onChange(kind === "time" ? { isTimeOff: true } : { [kind]: [] });
    showFeedback(getState(), null); // the results come later
    (byId("feedback").querySelector("button") ?? byId("box")).focus();
  });
}

export function showArrangement(results, state) {
  const isEmpty = !results.hits.length || state.target === "texts";
  showSorts(results.isSearch, state);
  byId("sort").disabled = isEmpty;
  byId("group").disabled = isEmpty || !results.isSearch;
  byId("group").ariaPressed = String(state.isGrouped);
  showFeedback(state, results.time);
  showFacets(results, state, isEmpty);
}

function showSorts(isSearch, { sort }) {
  const values = ["", ...SORTS.filter((value) => isSearch || value !== "-created_at")];
  const names = { "": isSearch ? "sort_best" : "sort_newest", "-created_at": "sort_newest", created_at: "sort_oldest", "-taken_at": "sort_taken", "-bytes": "sort_largest" };
  const options = values.map((value) => make("option", { value, selected: value === sort }, translate(names[value])));
  byId("sort").replaceChildren(...options);
}

function showFeedback(state, time) {
  const given = JUDGED.filter((kind) => getQuery(state)[kind].length);
  const kinds = time ? ["time", ...given] : given;
  byId("feedback").hidden = !kinds.length;
  const chips = kinds.map((kind) => {
    const [text, label] = kind === "time" ? describeTime(time) : describeFeedback(kind, state[kind].length);
    const shown = byId("feedback").querySelector(`[data-kind=${kind}]`);
    if (shown?.title === label) return shown.parentElement; // keeps the focus
    const chip = make("button", { type: "button", title: label, ariaLabel: label }, `${text} ×`);
    chip.dataset.kind = kind;
    return make("li", {}, chip);
  });
  const list = byId("feedback");
  if (chips.length !== list.children.length || chips.some((chip) => chip.parentElement !== list)) list.replaceChildren(...chips);
}

function describeFeedback(kind, n) {
  const text = translateCount(kind === "liked" ? "liked_pictures" : "unliked_pictures", n);
  return [text, translate("feedback_end", { text })];
}

/** Which days the words of time mean, and what the chip does. */
function describeTime({ text, from, to }) {
  const days = translate("taken", { days: formatDays(from, to) });
  return [days, `${days}. ${translate("taken_end", { text })}`];
}

/** Links to the values that some of the results have, and others have not. */
function showFacets(results, state, isEmpty) {
  const isShown = results.facets && !isEmpty && (results.isSearch || state.conditions.length);
  const { total: known, ...facets } = isShown ? results.facets : {};
  const total = known ?? facets.format?.reduce((sum, { count }) => sum + count, 0); // each picture has one format
  const links = Object.entries(facets).flatMap(([field, counts]) => makeLinks(field, counts, state, total));
  byId("facets").hidden = !links.length;
  byId("facets").replaceChildren(...links.map((link) => make("li", {}, link)));
}

function makeLinks(field, counts, state, total) {
  return counts.filter(({ count }) => count < total).map(({ value, count }) => {
    const shown = field === "format" ? value.toUpperCase() : String(value);
    const conditions = makeConditions(field, value);
    const href = makeHref({ ...state, show: null, conditions: [...state.conditions, ...conditions] });
    const number = make("span", { className: "muted" }, String(count));
    return make("a", { href, ariaLabel: translate("facet", { name: shown, n: count }) }, make("bdi", {}, shown), " ", number);
  });
}

function makeConditions(field, value) {
  if (field === "tags") return [["tag", value]];
  if (field === "format") return [["format", value]];
  return [["from", `${value}-01-01`], ["to", `${value}-12-31`]];
}
