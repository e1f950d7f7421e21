// The texts of a collection, which name pictures and are the results of a search for texts: a list of them, where the
// user can delete each and undo that, and the form that adds some, one per line. The form keeps its draft.

import { addTexts, deleteText, listTexts } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { appendMoreButton, make, makeButton } from "../components/dom.js";
import { makeForm, makeLabel } from "../components/form.js";
import { makeTextLink } from "../components/tile.js";
import { toast } from "../components/toast.js";
import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";

let draft = "";
const known = new Map(); // collection -> a promise of whether it has texts

/** Whether the collection has texts, so that they can be suggested for a picture. */
export function hasTexts(collection = currentCollection()) {
  if (!known.has(collection)) {
    const asked = listTexts(null, 1).then(({ texts }) => texts.length > 0);
    known.set(collection, asked.catch(() => known.delete(collection) && false));
  }
  return known.get(collection);
}

export function makeTextForm(onAdd) {
  const field = make("textarea", { rows: 4, value: draft, dir: "auto", required: true });
  field.addEventListener("input", () => (draft = field.value));
  return makeForm([makeLabel(translate("texts_field"), field)], {
    className: "texts",
    label: translate("add_texts"),
    submit: async () => {
      const lines = [...new Set(draft.split("\n").map((line) => line.trim()))].filter(Boolean);
      if (!lines.length) return;
      await addTexts(lines);
      known.clear();
      draft = "";
      toast(translateCount("texts_added", lines.length));
      onAdd();
    },
  });
}

let pending = null; // [id, collection] of a text that has left the list but not yet the server

window.addEventListener("pagehide", () => pending && deleteText(...pending).catch(() => {}));

/** All texts of the collection, newest first, a page at a time. */
export function makeTextList() {
  const list = make("ul", { className: "list all-texts", ariaLabel: translate("texts") });
  appendPage(list, null);
  return list;
}

async function appendPage(list, cursor) {
  const page = await listTexts(cursor).catch(() => ({ texts: [], next_cursor: null })); // the banner reports the problem
  list.append(...page.texts.map(makeLine));
  if (page.next_cursor) appendMoreButton(list, () => appendPage(list, page.next_cursor));
}

function makeLine({ id, text }) {
  const item = make("li", {}, makeTextLink(text));
  if (!hasScope("write")) return item;
  const remove = makeButton("quiet", "×", { ariaLabel: translate("remove_text", { text }) });
  remove.addEventListener("click", () => deleteWithUndo(item, id));
  item.append(remove);
  return item;
}

function deleteWithUndo(item, id) {
  const next = item.nextElementSibling ?? item.previousElementSibling;
  const collection = currentCollection();
  const commit = async () => {
    pending = null;
    try {
      await deleteText(id, collection);
      known.clear();
      item.remove();
    } catch (problem) {
      item.hidden = false;
      toast(translate("not_done", { detail: describeError(problem) }));
    }
  };
  const undo = () => {
    pending = null;
    item.hidden = false;
    item.querySelector("button").focus();
  };
  toast(translate("text_deleted"), { action: "undo", onAction: undo, onEnd: commit }); // first commits a pending one
  pending = [id, collection];
  item.hidden = true;
  next?.querySelector("button")?.focus();
}
