// The texts that are kept: what a picture can be named by, and what the search for texts finds. A list of them, from which
// each can be deleted with a way back, and the form that adds some, one a line; what is written there outlives a new drawing.

import { hrefOf } from "../state/url_state.js";
import { make } from "../components/dom.js";
import { here } from "../state/collection_context.js";
import { addTexts, deleteText, listTexts } from "../api/client.js";
import { may } from "../api/session.js";
import { toast } from "../components/toast.js";
import { counted, words } from "../i18n/i18n.js";

let draft = "";

export function textForm(added) {
  const field = make("textarea", { rows: 4, value: draft, dir: "auto", required: true });
  const said = make("p", { className: "bad", role: "alert", hidden: true });
  const save = make("button", { type: "submit", className: "button" }, words("add_texts"));
  const more = make("p", { className: "soft" }, words("texts_docs"), " ", make("a", { href: "docs", className: "link" }, words("docs")));
  const form = make(
    "form",
    { className: "texts" },
    make("label", {}, make("span", {}, words("texts_field")), field),
    said,
    make("div", { className: "acts" }, save, more),
  );
  field.addEventListener("input", () => (draft = field.value));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = [...new Set(draft.split("\n").map((line) => line.trim()))].filter(Boolean);
    if (!lines.length) return;
    save.disabled = true;
    try {
      await addTexts(lines);
      draft = "";
      toast(counted("texts_added", lines.length));
      added();
    } catch (problem) {
      save.disabled = false;
      said.textContent = problem.detail || words("away_short");
      said.hidden = false;
    }
  });
  return form;
}

let leaving = null; // [id, collection] of what is gone from the list and not yet from the server

window.addEventListener("pagehide", () => leaving && deleteText(...leaving).catch(() => {}));

/** All texts of the collection, newest first, a page at a time. */
export function textList() {
  const list = make("ul", { className: "list kept", ariaLabel: words("texts") });
  fill(list, null);
  return list;
}

async function fill(list, cursor) {
  const page = await listTexts(cursor).catch(() => ({ texts: [], next_cursor: null })); // the search above says why
  list.append(...page.texts.map(line));
  if (!page.next_cursor) return;
  const more = make("button", { type: "button", className: "quiet" }, words("more_failures"));
  const last = make("li", {}, more);
  more.addEventListener("click", async () => {
    more.disabled = true;
    await fill(list, page.next_cursor);
    last.remove();
  });
  list.append(last);
}

function line(text) {
  const link = make("a", { href: hrefOf({ q: text.text }) }, make("span", { className: "words", dir: "auto" }, text.text));
  const item = make("li", {}, link);
  if (!may("write")) return item;
  const away = make("button", { type: "button", className: "quiet", ariaLabel: words("remove_text", { text: text.text }) }, "×");
  away.addEventListener("click", () => remove(item, text));
  item.append(away);
  return item;
}

function remove(item, { id }) {
  const next = item.nextElementSibling ?? item.previousElementSibling;
  const place = here();
  const done = async () => {
    leaving = null;
    try {
      await deleteText(id, place);
      item.remove();
    } catch (problem) {
      item.hidden = false;
      toast(words("not_done", { detail: problem.detail || words("away_short") }));
    }
  };
  const undo = () => {
    leaving = null;
    item.hidden = false;
    item.querySelector("button").focus();
  };
  toast(words("text_deleted"), { action: "undo", undo, done }); // ends the one before first
  leaving = [id, place];
  item.hidden = true;
  next?.querySelector("button")?.focus();
}
