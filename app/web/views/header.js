// What stands around the results: the title, the links of the head, which view and which target are on.
// `speak` fills every word of it in the language that is chosen.

import { hrefOf } from "../state/url_state.js";
import { showChoice } from "../state/selection.js";
import { showPlace } from "./collections.js";
import { byId } from "../components/dom.js";
import { showFilter } from "../state/filter.js";
import { DEFAULT } from "../state/collection_context.js";
import { fillWords, words } from "../i18n/i18n.js";

export function showFrame({ collection, only, target, view, q }) {
  const jobs = view === "jobs";
  const place = collection === DEFAULT ? "" : collection;
  document.title = [jobs ? words("jobs") : q.trim(), place, "Sightline"].filter(Boolean).join(" · ");
  showFilter(only, target);
  document.querySelector(`#target [value=${target}]`).checked = true;
  byId("home").href = hrefOf({ collection });
  byId("jobs-link").href = hrefOf({ collection, view: "jobs" });
  byId("found").hidden = jobs;
  byId("jobs-link").ariaCurrent = jobs ? "page" : null;
}

export function speak({ only, target }) {
  fillWords();
  byId("language").textContent = words("other_language");
  byId("language").lang = words("other_language") === "English" ? "en" : "zh";
  showPlace();
  showFilter(only, target);
  showChoice();
}
