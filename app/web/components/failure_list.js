// The failed items of a job, each with its name and the reason that the server gives, a page at a time.
// The page shows names and reasons as plain text, because the names come from the sender.

import { listFailedItems } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { appendMoreButton, make } from "./dom.js";

export function makeFailureList() {
  return make("ul", { className: "failures", hidden: true, tabIndex: 0, ariaLabel: translate("failures") });
}

/** Append one page of failures to the list, and a button for the next page. */
export async function showFailures(job, list, cursor = null) {
  let page;
  try {
    page = await listFailedItems(job, cursor);
  } catch (problem) {
    page = { items: [{ name: "", error: problem }], next_cursor: null };
  }
  list.hidden = false;
  list.append(...page.items.map(({ name, error }) => makeLine(name, describeError(error))));
  if (page.next_cursor) appendMoreButton(list, () => showFailures(job, list, page.next_cursor));
}

function makeLine(name, reason) {
  return make("li", {}, make("b", { dir: "auto" }, name), make("span", {}, reason));
}
