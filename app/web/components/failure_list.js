// The items of a job that failed, each with its name and why, a page at a time.
// What the server says stands there as it is; names are the sender's and never more than text.

import { make } from "./dom.js";
import { failedItems } from "../api/client.js";
import { words } from "../i18n/i18n.js";

export async function showFailures(job, list, cursor = null) {
  let page;
  try {
    page = await failedItems(job, cursor);
  } catch (problem) {
    page = { items: [{ name: "", error: { detail: problem.detail || words("away_short") } }], next_cursor: null };
  }
  list.hidden = false;
  list.append(...page.items.map(({ name, error }) => line(name, error?.detail ?? "")));
  if (!page.next_cursor) return;
  const more = make("button", { type: "button", className: "quiet" }, words("more_failures"));
  const last = make("li", {}, more);
  more.addEventListener("click", async () => {
    more.disabled = true;
    await showFailures(job, list, page.next_cursor);
    last.remove();
  });
  list.append(last);
}

export function failureList() {
  return make("ul", { className: "failures", hidden: true, tabIndex: 0, ariaLabel: words("failures") });
}

function line(name, why) {
  return make("li", {}, make("b", { dir: "auto" }, name), make("span", {}, why));
}
