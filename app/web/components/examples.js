// Example searches above the pictures of the demo gallery, as links, so that a newcomer sees what a search can be.
// The demo's pictures are known by their metadata: no other list shows examples.

import { translate } from "../i18n/i18n.js";
import { makeHref } from "../state/url_state.js";
import { byId, make } from "./dom.js";

/** Show or hide the examples for the first page of a list. */
export function showExamples(results, state) {
  const isDemo = results.hits.slice(0, 20).some(({ image }) => Array.isArray(image?.metadata.emoji));
  const isShown = isDemo && !results.isSearch && !state.conditions.length;
  const list = byId("examples");
  list.hidden = !isShown;
  if (!isShown) return;
  const links = translate("example_searches").split("|").map((q) => make("a", { href: makeHref({ q }) }, q));
  list.replaceChildren(make("li", { className: "muted" }, translate("examples_try")), ...links.map((link) => make("li", {}, link)));
}
