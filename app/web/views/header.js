// Everything around the results: the title of the window, the links of the header, which view and target are on.
// `translatePage` writes all of it in the chosen language.

import { hasScope } from "../api/session.js";
import { byId } from "../components/dom.js";
import { showFilter } from "../components/filter_dialog.js";
import { showSelectionBar } from "../components/selection_bar.js";
import { translate, translateElements } from "../i18n/i18n.js";
import { DEFAULT } from "../state/collection_context.js";
import { makeHref } from "../state/url_state.js";
import { showCollectionName } from "./collections.js";

export function showHeader({ collection, conditions, like, target, view, q }) {
  const isResults = view === "results";
  const isTexts = target === "texts" && isResults;
  const name = collection === DEFAULT ? "" : collection;
  document.title = [isResults ? q.trim() || (isTexts && translate("texts")) : translate(view), name, "Sightline"].filter(Boolean).join(" · ");
  showFilter(conditions, target);
  byId("home").href = makeHref({ collection });
  byId("labels-link").href = makeHref({ collection, q, like, target: "texts" });
  byId("labels-link").ariaCurrent = isTexts ? "page" : null;
  byId("pictures-link").href = makeHref({ collection, q, like, target: "images" });
  byId("pictures-link").hidden = !isTexts;
  byId("jobs-link").href = makeHref({ collection, view: "jobs" });
  byId("jobs-link").ariaCurrent = view === "jobs" ? "page" : null;
  byId("duplicates-link").href = makeHref({ collection, view: "duplicates" });
  byId("duplicates-link").ariaCurrent = view === "duplicates" ? "page" : null;
  byId("search-view").hidden = !isResults;
  byId("add").hidden = !hasScope("write");
}

export function translatePage({ conditions, target }) {
  translateElements();
  byId("language").textContent = translate("other_language");
  byId("language").lang = translate("other_language") === "English" ? "en" : "zh";
  showCollectionName();
  showFilter(conditions, target);
  showSelectionBar();
}
