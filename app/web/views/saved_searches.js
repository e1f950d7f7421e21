// The dialog of the saved searches: what each has found and what of it is new, and a form that saves the search that is
// shown. Whoever opens one has seen what it found.

import { deleteSavedSearch, listSavedSearches, saveSearch, seeSavedSearch } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { byId, make, makeButton } from "../components/dom.js";
import { makeForm, makeLabel } from "../components/form.js";
import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { readConditions } from "../state/filter.js";
import { joinQuery } from "../state/query.js";
import { makeHref } from "../state/url_state.js";

const NEAREST = 10; // the last of so many hits has the score that is offered as the least

const COUNTING_MS = 700; // between two looks at what the server still counts

let getSearch = () => null;
let timer = 0;

/** `given.getSearch()` gives {query, hits} of the search that is shown, or null if there is none to save. */
export function watchSavedSearches(given) {
  getSearch = given.getSearch;
  byId("saved-button").addEventListener("click", showDialog);
}

async function showDialog() {
  byId("menu").hidePopover();
  byId("saved-list").replaceChildren();
  byId("saved-error").hidden = true;
  byId("saved-dialog").showModal();
  showForm();
  await showList();
}

async function showList() {
  clearTimeout(timer);
  try {
    const saved = await listSavedSearches();
    byId("saved-list").replaceChildren(...saved.map(makeItem));
    byId("saved-none").hidden = saved.length > 0;
    showWhetherSaved(saved);
    const isCounting = saved.some(({ is_complete, error }) => !is_complete && !error);
    if (isCounting && byId("saved-dialog").open) timer = setTimeout(showList, COUNTING_MS);
  } catch (problem) {
    showError(problem);
  }
}

function showError(problem) {
  byId("saved-error").textContent = describeError(problem);
  byId("saved-error").hidden = false;
}

function makeItem(saved) {
  const isCounting = !saved.is_complete && !saved.error;
  const counts = [isCounting ? translate("saved_counting") : translateCount("count_images", saved.total), saved.new && translate("saved_new", { n: saved.new })];
  const link = make("a", { href: makeAddress(saved), dir: "auto" }, make("strong", {}, saved.name));
  const notes = [saved.error, ...saved.warnings.map(({ detail }) => detail), describeWebhook(saved.webhook)].filter(Boolean);
  link.addEventListener("click", () => hasScope("write") && seeSavedSearch(saved.id));
  const remove = makeButton("danger-link", translate("remove"), { ariaLabel: translate("saved_remove", { name: saved.name }) });
  remove.addEventListener("click", async () => {
    await deleteSavedSearch(saved.id).catch(showError);
    await showList();
    byId("saved-dialog").querySelector("[data-close]").focus();
  });
  return make(
    "li",
    {},
    link,
    make("span", { className: "muted" }, counts.filter(Boolean).join(" · ")),
    hasScope("write") ? remove : null,
    ...notes.map((note) => make("small", { className: "muted" }, note)),
  );
}

function describeWebhook(webhook) {
  if (!webhook) return "";
  return translate(`webhook_${webhook.state}`, { url: webhook.url, error: webhook.error ?? "" });
}

/** The address of the page that searches for the same. */
function makeAddress({ collection, query }) {
  const { q, like } = joinQuery(query.query);
  return makeHref({ collection, q, like, liked: query.like, unliked: query.unlike, conditions: readConditions(query.filter) });
}

/** What is saved already is not offered again. */
function showWhetherSaved(saved) {
  const search = getSearch();
  if (!search || byId("saved-new").hidden) return;
  const { q, like, liked, unliked, filter } = search.query;
  const address = makeHref({ collection: currentCollection(), q, like, liked, unliked, conditions: readConditions(filter) });
  if (!saved.some((one) => makeAddress(one) === address)) return;
  byId("saved-new").replaceChildren(make("p", { className: "muted" }, translate("saved_known")));
}

function showForm() {
  const search = hasScope("write") ? getSearch() : null;
  byId("saved-new").hidden = !search;
  if (!search) return;
  const { query, hits } = search;
  const isWords = !query.like.length;
  const name = make("input", { type: "text", maxLength: 200, required: true, dir: "auto", value: query.q });
  const nearest = hits.slice(0, NEAREST).at(-1)?.score;
  const value = isWords || nearest === undefined ? "" : nearest.toFixed(2);
  const least = make("input", { type: "text", inputMode: "decimal", pattern: "-?[01]?([.]\\d+)?", required: !isWords, value });
  least.placeholder = isWords ? translate("saved_good") : "";
  const submit = async () => {
    await saveSearch(query, name.value.trim(), least.value === "" ? null : Number(least.value));
    byId("saved-new").hidden = true;
    await showList();
    byId("saved-list").querySelector("a")?.focus();
  };
  const fields = [makeLabel(translate("saved_name"), name), makeLabel(translate("saved_least"), least)];
  byId("saved-new").replaceChildren(makeForm(fields, { label: translate("saved_save"), submit }));
}
