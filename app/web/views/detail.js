// One picture large, in a dialog: its caption, tags, metadata and score, what is like it and what it may be called.
// Closing is told to `closed`; the address decides what is open. Caption and tags are changed in edit.js.

import { EVEN } from "../state/url_state.js";
import { editor } from "../components/edit_form.js";
import { byId, closeBeside, make } from "../components/dom.js";
import { original, search, thumbnail } from "../api/client.js";
import { textForm } from "./texts.js";
import { nameOf, textLines } from "../components/tile.js";
import { hostToast } from "../components/toast.js";
import { bytes, date, words } from "../i18n/i18n.js";

const AS_SENT = 2_000_000; // bytes up to which the file itself is shown, beyond it a large thumbnail
const NAMES = 8;

const TYPED = "input, textarea, select";
let open = null; // {hit, beside} as last drawn

export function watchView({ closed, alike, stepped, removed, undone, changed }) {
  const dialog = byId("view");
  const acts = {
    close: () => dialog.close(),
    like: (id) => alike(id),
    name: (id) => showNames(id),
    previous: () => stepped(-1),
    next: () => stepped(1),
    remove: (id) => removed(id),
    edit: () => edit(changed),
  };
  dialog.addEventListener("close", closed);
  closeBeside(dialog);
  dialog.addEventListener("click", (event) => {
    acts[event.target.closest("[data-act]")?.dataset.act]?.(dialog.dataset.id);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches(TYPED)) return;
    if (event.key === "ArrowLeft") stepped(-1);
    if (event.key === "ArrowRight") stepped(1);
    if (event.key === "Delete" && !event.repeat && !dialog.querySelector("form")) removed(dialog.dataset.id);
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) undone();
  });
}

export function openView(hit, beside) {
  const dialog = byId("view");
  const focused = dialog.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  const same = dialog.open && dialog.dataset.id === hit.id;
  if (same && dialog.querySelector("form")) return; // what is being written stays
  open = { hit, beside };
  dialog.dataset.id = hit.id;
  for (const old of [...dialog.children]) if (old.matches(".stage, .side, [data-act=close]")) old.remove();
  dialog.prepend(act("close", "×"), stage(hit.image, beside), side(hit));
  if (!dialog.open) dialog.showModal();
  hostToast();
  const first = dialog.querySelector(`[data-act=${focused}]:not(:disabled)`) ?? dialog.querySelector("[data-act=close]");
  first.focus();
}

async function edit(changed) {
  const { hit, beside } = open;
  const dialog = byId("view");
  const head = dialog.querySelector(".about");
  const form = editor(hit.image, (image) => {
    form.remove();
    if (image) changed(image);
    const now = image ? { ...hit, image } : hit;
    if (dialog.dataset.id === hit.id) openView(now, beside);
    dialog.querySelector("[data-act=edit]")?.focus();
  });
  head.replaceWith(form);
  form.querySelector("textarea").focus();
}

export function closeView() {
  const dialog = byId("view");
  if (dialog.open) dialog.close();
}

function stage(image, { previous, next }) {
  const small = image.animated || image.bytes <= AS_SENT;
  const picture = make("img", {
    alt: nameOf(image),
    width: image.width ?? 1,
    height: image.height ?? 1,
  });
  picture.style.setProperty("--width", image.width ?? 1000); // small pictures are enlarged only so far
  const sides = [act("previous", "‹", { disabled: !previous }), act("next", "›", { disabled: !next })];
  const place = make("div", { className: "stage" }, picture, ...sides);
  picture.addEventListener("error", () => place.classList.add("broken"), { once: true });
  if (image.status === "failed") place.classList.add("broken");
  else picture.src = small ? original(image.id) : thumbnail(image.id, 1024);
  return place;
}

function side({ id, score, image }) {
  const actions = make("div", { className: "acts" });
  if (image.status === "ready") actions.append(act("like"), act("name"));
  actions.append(act("edit"), act("remove"));
  const named = make("section", { className: "names", hidden: true, "aria-live": "polite" });
  const link = make("a", { href: original(id), download: image.source ?? "", className: "quiet" }, words("original"));
  return make(
    "div",
    { className: "side" },
    make(
      "div",
      { className: "about" },
      make("h2", { dir: "auto", className: image.caption ? "" : "none" }, nameOf(image)),
      tags(image.tags),
    ),
    ...state(image),
    score === undefined ? null : nearness(score),
    actions,
    named,
    facts(words("metadata"), Object.entries(image.metadata)),
    facts(null, details(image)),
    link,
  );
}

function state({ status, error }) {
  if (status === "ready") return [];
  if (status !== "failed") return [make("p", { className: "soft" }, words("waiting_picture"))];
  const why = make("p", { className: "bad" }, words("failed_picture", { detail: error?.detail ?? "" }));
  return [why, make("p", { className: "soft" }, words("failed_help"))];
}

function nearness(score) {
  const number = make("strong", {}, words("nearness", { score: score.toFixed(3) }));
  return make("p", { className: "nearness" }, number, make("small", {}, words("nearness_note")));
}

function tags(all) {
  if (!all.length) return null;
  return make("ul", { className: "tags", ariaLabel: words("tags") }, ...all.map((tag) => make("li", { dir: "auto" }, tag)));
}

function details(image) {
  const shape = image.width ? `${image.width} × ${image.height}` : "–";
  const kind = image.format.toUpperCase() + (image.animated ? `, ${words("animated")}` : "");
  return [
    [words("size"), `${shape} · ${bytes(image.bytes)}`],
    [words("format"), kind],
    [words("source"), image.source ?? "–"],
    [words("added"), date(image.created_at)],
    [words("id"), image.id],
  ];
}

function facts(title, pairs) {
  if (!pairs.length) return null;
  const list = make("dl");
  for (const [name, value] of pairs) {
    list.append(make("dt", { dir: "auto" }, name), make("dd", { dir: "auto" }, plain(value)));
  }
  return make("section", {}, title ? make("h3", {}, title) : null, list);
}

function plain(value) {
  if (Array.isArray(value) && value.every((one) => Object(one) !== one)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

async function showNames(id) {
  const place = byId("view").querySelector(".names");
  const said = await search({ q: "", like: [id], file: null, target: "texts", weight: EVEN }, NAMES)
    .then(({ hits }) => (hits.length ? [make("ol", { className: "list" }, ...textLines(hits))] : noTexts(id)))
    .catch((problem) => [make("p", { className: "bad" }, problem.detail || words("away_short"))]);
  place.replaceChildren(make("h3", {}, words("names")), ...said);
  place.hidden = false;
}

function noTexts(id) {
  return [make("p", { className: "soft" }, words("no_texts")), textForm(() => showNames(id))];
}

function act(name, sign = null, properties = {}) {
  const className = sign ? "sign" : name === "like" ? "button" : "button plain";
  const button = make("button", { type: "button", className, ...properties }, sign ?? words(name));
  if (sign) Object.assign(button, { ariaLabel: words(name), title: words(name) });
  button.dataset.act = name;
  return button;
}
