// The collections in a dialog: go to one, make, describe and drop one. Dropping asks again and names what would go.
// The button that opens it stands in the head as soon as there is more than one, or another than `default` is shown.

import { byId, closeBeside, make } from "../components/dom.js";
import { DEFAULT, here, homeOf } from "../state/collection_context.js";
import { describeCollection, dropCollection, getCollection, listCollections, makeCollection } from "../api/client.js";
import { boundTo, may } from "../api/session.js";
import { toast } from "../components/toast.js";
import { counted, words } from "../i18n/i18n.js";

const FEW = 8; // as many need no field to find one
let known = null; // as the server listed them last
let chosen = () => {}; // told the name of the one to go to
let gone = () => {};

/** `went(name)` shows another collection, `dropped(name)` forgets what is kept of one. */
export function watchCollections({ went, dropped }) {
  chosen = went;
  gone = dropped;
  const dialog = byId("collections");
  closeBeside(dialog);
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  for (const opener of document.querySelectorAll("[data-collections]")) opener.addEventListener("click", open);
  byId("collections-find").addEventListener("input", draw);
  byId("collections-new").addEventListener("click", () => {
    byId("collections-new").hidden = true;
    byId("collections-make").replaceChildren(newForm());
    byId("collections-make").querySelector("input").focus();
  });
}

/** Look which there are, so that the head can say it. */
export async function lookAround() {
  known = await listCollections().catch(() => known);
  showPlace();
}

export function showPlace() {
  const name = here();
  byId("place").hidden = name === DEFAULT && (known?.length ?? 1) < 2;
  byId("place-name").textContent = name;
  byId("place").ariaLabel = words("place", { name });
  byId("place").title = byId("place").ariaLabel;
  byId("adding-place").textContent = name;
}

async function open() {
  const dialog = byId("collections");
  for (const other of document.querySelectorAll("dialog[open]")) other.close();
  byId("collections-find").value = "";
  byId("collections-make").replaceChildren();
  byId("collections-new").hidden = true;
  byId("collection-list").replaceChildren();
  dialog.showModal();
  try {
    known = await listCollections();
    said("");
  } catch (problem) {
    return said(problem.detail || words("away_short"));
  }
  byId("collections-new").hidden = !may("admin") || boundTo() !== null;
  draw();
  showPlace();
  (dialog.querySelector("[aria-current]") ?? dialog.querySelector("[data-close]")).focus();
}

function draw() {
  const find = byId("collections-find");
  find.hidden = known.length <= FEW;
  const wanted = find.value.trim().toLowerCase();
  const fits = ({ name, description }) => `${name} ${description}`.toLowerCase().includes(wanted);
  byId("collection-list").replaceChildren(...known.filter(fits).map(line));
}

function line(one) {
  const name = make("strong", {}, one.name);
  const link = make("button", { type: "button", className: "go" }, name, make("span", { className: "soft" }, holds(one)));
  if (one.description) link.append(make("span", { className: "words", dir: "auto" }, one.description));
  if (one.name === here()) link.ariaCurrent = "true";
  link.addEventListener("click", () => goTo(one.name));
  const item = make("li", {}, link);
  if (may("admin")) item.append(acts(one, item));
  return item;
}

function acts(one, item) {
  const describe = button("quiet", words("describe"), words("describe_one", { name: one.name }));
  describe.addEventListener("click", () => replace(item, one, describeForm(one, item)));
  const all = [describe];
  if (one.name !== DEFAULT) {
    const drop = button("quiet", words("remove"), words("drop_one", { name: one.name }));
    drop.addEventListener("click", () => confirmDrop(one, item));
    all.push(drop);
  }
  return make("span", { className: "acts" }, ...all);
}

function holds({ images, texts }) {
  const said = [counted("holds_images", images)];
  if (texts) said.push(counted("holds_texts", texts));
  return said.join(" · ");
}

function goTo(name) {
  byId("collections").close();
  chosen(name);
}

function newForm() {
  const name = make("input", { type: "text", maxLength: 64, required: true, pattern: "[a-z0-9_\\-]+", autocomplete: "off" });
  Object.assign(name, { spellcheck: false, autocapitalize: "off", title: words("collection_name_note") });
  const about = aboutField("");
  const note = make("small", { className: "soft", id: "name-note" }, words("collection_name_note"));
  name.setAttribute("aria-describedby", "name-note");
  const fields = [labelled(words("collection_name"), name), note, labelled(words("description"), about)];
  return form(fields, words("make"), closeNew, async () => {
    const one = await makeCollection(name.value.trim(), about.value.trim());
    known = [...known.filter((other) => other.name !== one.name), one];
    closeNew();
    goTo(one.name);
  });
}

function closeNew() {
  byId("collections-make").replaceChildren();
  byId("collections-new").hidden = false;
  byId("collections-new").focus();
}

function describeForm(one, item) {
  const about = aboutField(one.description);
  const back = () => giveBack(item, one, 0);
  return form([labelled(words("description"), about)], words("save"), back, async () => {
    Object.assign(one, await describeCollection(one.name, about.value.trim()));
    back();
  });
}

async function confirmDrop(one, item) {
  try {
    Object.assign(one, await getCollection(one.name)); // as many as there are now
  } catch (problem) {
    return said(problem.detail || words("away_short"));
  }
  const [name, held] = [one.name, holds(one)];
  const ask = make("p", {}, words(one.images + one.texts ? "drop_sure" : "drop_empty", { name, held }));
  const asked = form([ask], words("drop"), () => giveBack(item, one, -1), async () => {
    await dropCollection(name);
    known = known.filter((other) => other !== one);
    item.remove();
    byId("collections").querySelector("[data-close]").focus();
    gone(name);
    showPlace();
    toast(words("dropped", { name }));
    if (name === here()) goTo(homeOf());
  });
  asked.querySelector("[type=submit]").classList.add("danger");
  replace(item, one, asked);
}

/** A form in the place of a line, whose name stays above it. */
function replace(item, one, fields) {
  item.replaceChildren(make("strong", {}, one.name), fields);
  (fields.querySelector("input") ?? fields.querySelector("[type=button]")).focus();
}

function giveBack(item, one, n) {
  const fresh = line(one);
  item.replaceWith(fresh);
  [...fresh.querySelectorAll(".acts button")].at(n)?.focus();
}

function form(fields, save, cancelled, done) {
  const wrong = make("p", { className: "bad", role: "alert", hidden: true });
  const submit = make("button", { type: "submit", className: "button" }, save);
  const cancel = button("button plain", words("cancel"));
  const made = make("form", { className: "edit" }, ...fields, wrong, make("div", { className: "acts" }, submit, cancel));
  cancel.addEventListener("click", cancelled);
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault(); // of the dialog, which stays
    cancelled();
  });
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await done();
    } catch (problem) {
      wrong.textContent = problem.detail || words("away_short");
      wrong.hidden = false;
    }
    submit.disabled = false;
  });
  return made;
}

function aboutField(value) {
  return make("input", { type: "text", value, maxLength: 500, autocomplete: "off", dir: "auto" });
}

function labelled(text, field) {
  return make("label", {}, make("span", {}, text), field);
}

function said(text) {
  byId("collections-said").textContent = text;
  byId("collections-said").hidden = !text;
}

function button(className, text, label = text) {
  return make("button", { type: "button", className, "aria-label": label }, text);
}
