// The dialog of the collections: open, create, describe or delete one. Deleting asks again and says what it deletes.
// The button of the dialog is always in the header and names the collection that is open.

import { createCollection, deleteCollection, getCollection, listCollections, updateCollection } from "../api/client.js";
import { allowedCollections, hasScope } from "../api/session.js";
import { byId, make, makeButton } from "../components/dom.js";
import { makeForm, makeLabel } from "../components/form.js";
import { toast } from "../components/toast.js";
import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection, DEFAULT, homeCollection } from "../state/collection_context.js";

const MAX_WITHOUT_SEARCH = 8; // collections, for which the dialog has no search field
let collections = null; // as the server last listed them
let onOpen = () => {};
let onDelete = () => {};

/** `onOpen(name, isNew)` shows another collection, `onDelete(name)` forgets the results of one. */
export function watchCollections(listeners) {
  ({ onOpen, onDelete } = listeners);
  for (const button of document.querySelectorAll("[data-collections]")) button.addEventListener("click", showDialog);
  byId("collections-find").addEventListener("input", showList);
  byId("collections-new").addEventListener("click", () => {
    byId("collections-new").hidden = true;
    byId("collections-create").replaceChildren(makeCreateForm());
    byId("collections-create").querySelector("input").focus();
  });
}

export function showCollectionName() {
  const name = currentCollection();
  const button = byId("collection-button");
  button.ariaLabel = translate("collection_button", { name });
  button.title = button.ariaLabel;
  byId("collection-name").textContent = name;
  byId("add-collection").textContent = name;
  byId("drop-add").textContent = translate("drop_add", { name });
}

async function showDialog() {
  const dialog = byId("collections");
  for (const other of document.querySelectorAll("dialog[open]")) other.close();
  byId("collections-find").value = "";
  byId("collections-create").replaceChildren();
  byId("collections-new").hidden = true;
  byId("collection-list").replaceChildren();
  dialog.showModal();
  try {
    collections = await listCollections();
    showError("");
  } catch (problem) {
    return showError(describeError(problem));
  }
  byId("collections-new").hidden = !hasScope("admin") || allowedCollections() !== null;
  showList();
  showCollectionName();
  (dialog.querySelector("[aria-current]") ?? dialog.querySelector("[data-close]")).focus();
}

function showError(text) {
  byId("collections-error").textContent = text;
  byId("collections-error").hidden = !text;
}

function showList() {
  const find = byId("collections-find");
  find.hidden = collections.length <= MAX_WITHOUT_SEARCH;
  const wanted = find.value.trim().toLowerCase();
  const matches = ({ name, description }) => `${name} ${description}`.toLowerCase().includes(wanted);
  byId("collection-list").replaceChildren(...collections.filter(matches).map(makeLine));
}

function makeLine(collection) {
  const { name, description } = collection;
  const contents = make("span", { className: "muted" }, describeContents(collection));
  const open = make("button", { type: "button", className: "collection-link" }, make("strong", {}, name), contents);
  if (description) open.append(make("span", { className: "text", dir: "auto" }, description));
  if (name === currentCollection()) open.ariaCurrent = "true";
  open.addEventListener("click", () => openCollection(name));
  const item = make("li", {}, open);
  if (hasScope("admin")) item.append(makeButtons(collection, item));
  return item;
}

function makeButtons(collection, item) {
  const { name } = collection;
  const edit = makeButton("quiet", translate("describe"), { ariaLabel: translate("describe_one", { name }) });
  edit.addEventListener("click", () => showForm(item, collection, makeDescribeForm(collection, item)));
  const buttons = make("span", { className: "buttons" }, edit);
  if (name === DEFAULT) return buttons;
  const remove = makeButton("quiet", translate("remove"), { ariaLabel: translate("delete_collection_one", { name }) });
  remove.addEventListener("click", () => confirmDeletion(collection, item));
  buttons.append(remove);
  return buttons;
}

function describeContents({ images, texts }) {
  const counts = [translateCount("count_images", images)];
  if (texts) counts.push(translateCount("count_texts", texts));
  return counts.join(" · ");
}

function openCollection(name, isNew) {
  byId("collections").close();
  onOpen(name, isNew);
}

/** The field for the name of a new collection, and the note that says what it may have: {field, note}. */
export function makeNameField() {
  const note = make("small", { className: "muted", id: "name-note" }, translate("collection_name_note"));
  const field = make("input", { type: "text", maxLength: 64, required: true, pattern: "[a-z0-9_\\-]+", autocomplete: "off" });
  Object.assign(field, { spellcheck: false, autocapitalize: "off", title: note.textContent });
  field.setAttribute("aria-describedby", note.id);
  return { field, note };
}

function makeCreateForm() {
  const { field: name, note } = makeNameField();
  const description = makeDescriptionField("");
  const fields = [makeLabel(translate("collection_name"), name), note, makeLabel(translate("description"), description)];
  const submit = async () => {
    const created = await createCollection(name.value.trim(), description.value.trim());
    collections = [...collections.filter((other) => other.name !== created.name), created];
    closeCreateForm();
    openCollection(created.name, true);
  };
  return makeForm(fields, { label: translate("create"), submit, cancel: closeCreateForm });
}

function closeCreateForm() {
  byId("collections-create").replaceChildren();
  byId("collections-new").hidden = false;
  byId("collections-new").focus();
}

function makeDescribeForm(collection, item) {
  const description = makeDescriptionField(collection.description);
  const close = () => restoreLine(item, collection, 0);
  const submit = async () => {
    Object.assign(collection, await updateCollection(collection.name, description.value.trim()));
    close();
  };
  return makeForm([makeLabel(translate("description"), description)], { label: translate("save"), submit, cancel: close });
}

async function confirmDeletion(collection, item) {
  try {
    Object.assign(collection, await getCollection(collection.name)); // with the counts of this moment
  } catch (problem) {
    return showError(describeError(problem));
  }
  const { name, images, texts } = collection;
  const key = images + texts ? "delete_collection_question" : "delete_collection_empty";
  const question = make("p", {}, translate(key, { name, contents: describeContents(collection) }));
  const submit = async () => {
    await deleteCollection(name);
    collections = collections.filter((other) => other !== collection);
    item.remove();
    byId("collections").querySelector("[data-close]").focus();
    onDelete(name);
    showCollectionName();
    toast(translate("collection_deleted", { name }));
    if (name === currentCollection()) openCollection(homeCollection());
  };
  const label = translate("delete_collection");
  const form = makeForm([question], { label, submit, cancel: () => restoreLine(item, collection, -1) });
  form.querySelector("[type=submit]").classList.add("danger");
  showForm(item, collection, form);
}

/** Replace a line of the list by a form below the collection's name. */
function showForm(item, collection, form) {
  item.replaceChildren(make("strong", {}, collection.name), form);
  (form.querySelector("input") ?? form.querySelector("[type=button]")).focus();
}

/** Put the line of a collection back, and focus its button number `n`. */
function restoreLine(item, collection, n) {
  const line = makeLine(collection);
  item.replaceWith(line);
  [...line.querySelectorAll(".buttons button")].at(n)?.focus();
}

function makeDescriptionField(value) {
  return make("input", { type: "text", value, maxLength: 500, autocomplete: "off", dir: "auto" });
}
