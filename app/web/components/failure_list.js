// The files that failed, grouped by the reason, the most frequent first. The page shows names and reasons as plain text,
// because the names come from the sender.

import { listFailedItems } from "../api/client.js";
import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { appendMoreButton, make, makeButton } from "./dom.js";

const SHOWN_NAMES = 5; // of each reason, until the user asks for all
const NUMBER = /\d[\d,.]*/g;
const PERMANENT = [
  ...["image_corrupt", "image_too_large", "unsupported_media_type", "archive_corrupt", "archive_limit"],
  ...["url_not_allowed", "payload_too_large", "validation", "id_conflict", "bad_request", "not_found"],
]; // codes of files that fail again however often the server tries

/** Whether the server may succeed with one of these items ({error}) if it tries again. */
export function canRetry(items) {
  return items.some(({ error }) => !PERMANENT.includes(error?.code));
}

/** Gives {element, add, load, clear}; the element is hidden while it is empty. */
export function makeFailureList() {
  const element = make("ul", { className: "failures", hidden: true, tabIndex: 0, ariaLabel: translate("failures") });
  let groups = new Map(); // reason without its numbers -> {item, names, …}

  /** Add items, {name, error} each. */
  const add = (items) => {
    for (const { name, error } of items) {
      const reason = describeError(error ?? {});
      const key = reason.replace(NUMBER, "");
      if (!groups.has(key)) groups.set(key, makeGroup(reason));
      groups.get(key).add(name, reason);
    }
    const more = element.querySelector(":scope > .more-items");
    const sorted = [...groups.values()].sort((a, b) => b.count - a.count);
    element.replaceChildren(...sorted.map((group) => group.item), ...(more ? [more] : []));
    element.hidden = !element.childElementCount;
  };
  /** Load a page of the failed items of a job, with a button for the next one; gives its items. */
  const load = async (job, cursor = null) => {
    let page;
    try {
      page = await listFailedItems(job, cursor);
    } catch (problem) {
      page = { items: [{ name: "", error: problem }], next_cursor: null };
    }
    add(page.items);
    if (page.next_cursor) appendMoreButton(element, () => load(job, page.next_cursor)).className = "more-items";
    return page.items;
  };
  const clear = () => {
    groups = new Map();
    element.replaceChildren();
    element.hidden = true;
  };
  return { element, add, load, clear };
}

function makeGroup(reason) {
  const count = make("span", { className: "count" });
  const names = make("ul");
  const all = makeButton("link", "", { hidden: true });
  const item = make("li", {}, make("p", {}, reason, " ", count), names, all);
  const hidden = [];
  const group = { item, count: 0 };
  group.add = (name, own) => {
    group.count += 1;
    count.textContent = translateCount("files_n", group.count);
    const line = make("li", { dir: "auto" }, name, own === reason ? null : make("span", {}, own));
    if (group.count > SHOWN_NAMES) hidden.push(line);
    else if (name) names.append(line);
    all.hidden = !hidden.length;
    all.textContent = translate("show_n_more", { n: hidden.length });
  };
  all.addEventListener("click", () => {
    names.append(...hidden.splice(0));
    all.hidden = true;
  });
  return group;
}
