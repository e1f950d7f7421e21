// The dialog that shows one picture large, with its caption, tags, metadata and score, and the texts that fit it.
// The address decides which picture is open, so this module reports to main.js when the user closes the dialog.

import { fileUrl, search, thumbnailUrl, updateImage } from "../api/client.js";
import { byId, make, makeButton } from "../components/dom.js";
import { makeForm, makeLabel } from "../components/form.js";
import { getName, makeTextLines } from "../components/tile.js";
import { placeToast } from "../components/toast.js";
import { describeError, formatBytes, formatDate, translate } from "../i18n/i18n.js";
import { EQUAL_WEIGHT } from "../state/url_state.js";
import { makeTextForm } from "./texts.js";

const MAX_ORIGINAL_BYTES = 2_000_000; // of a larger file the page shows a large thumbnail instead
const MAX_NAMES = 8;
let shown = null; // {hit, neighbours}

/** `onStep(by)`: -1 to the previous, 1 to the next picture; `onChange(image)` after an edit. */
export function watchDetail({ onClose, onLike, onStep, onRemove, onUndo, onChange }) {
  const dialog = byId("detail");
  const actions = {
    close: () => dialog.close(),
    like: onLike,
    name: showNames,
    previous: () => onStep(-1),
    next: () => onStep(1),
    remove: onRemove,
    edit: () => showEditForm(onChange),
  };
  dialog.addEventListener("close", onClose);
  dialog.addEventListener("click", (event) => {
    actions[event.target.closest("[data-action]")?.dataset.action]?.(dialog.dataset.id);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input, textarea, select")) return;
    if (event.key === "ArrowLeft") onStep(-1);
    if (event.key === "ArrowRight") onStep(1);
    if (event.key === "Delete" && !event.repeat && !dialog.querySelector("form")) onRemove(dialog.dataset.id);
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) onUndo();
  });
}

/** `neighbours`: {previous, next}, whether there are such pictures. */
export function openDetail(hit, neighbours) {
  const dialog = byId("detail");
  const focused = dialog.contains(document.activeElement) ? document.activeElement.dataset.action : null;
  const isSame = dialog.open && dialog.dataset.id === hit.id;
  if (isSame && dialog.querySelector("form")) return; // keeps what the user is writing
  shown = { hit, neighbours };
  dialog.dataset.id = hit.id;
  for (const old of [...dialog.children]) if (old.matches(".stage, .side, [data-action=close]")) old.remove();
  dialog.prepend(makeActionButton("close", "×"), makeStage(hit.image, neighbours), makeSide(hit));
  if (!dialog.open) dialog.showModal();
  placeToast();
  const sameButton = dialog.querySelector(`[data-action=${focused}]:not(:disabled)`);
  (sameButton ?? dialog.querySelector("[data-action=close]")).focus();
}

export function closeDetail() {
  const dialog = byId("detail");
  if (dialog.open) dialog.close();
}

function showEditForm(onChange) {
  const { hit, neighbours } = shown;
  const dialog = byId("detail");
  const form = makeEditForm(hit.image, (image) => {
    form.remove();
    if (image) onChange(image);
    if (dialog.dataset.id === hit.id) openDetail(image ? { ...hit, image } : hit, neighbours);
    dialog.querySelector("[data-action=edit]")?.focus();
  });
  dialog.querySelector(".about").replaceWith(form);
  form.querySelector("textarea").focus();
}

function makeStage(image, { previous, next }) {
  const picture = make("img", { alt: getName(image), width: image.width ?? 1, height: image.height ?? 1 });
  picture.style.setProperty("--width", image.width ?? 1000); // the style limits how much it enlarges small pictures
  const back = makeActionButton("previous", "‹", { disabled: !previous });
  const forward = makeActionButton("next", "›", { disabled: !next });
  const stage = make("div", { className: "stage" }, picture, back, forward);
  picture.addEventListener("error", () => stage.classList.add("broken"), { once: true });
  const showsFile = image.animated || image.bytes <= MAX_ORIGINAL_BYTES;
  if (image.status === "failed") stage.classList.add("broken");
  else picture.src = showsFile ? fileUrl(image.id) : thumbnailUrl(image.id, 1024);
  return stage;
}

function makeSide({ id, score, image }) {
  const actions = make("div", { className: "buttons" });
  if (image.status === "ready") actions.append(makeActionButton("like"), makeActionButton("name"));
  actions.append(makeActionButton("edit"), makeActionButton("remove"));
  const title = make("h2", { dir: "auto", className: image.caption ? "" : "no-caption" }, getName(image));
  return make(
    "div",
    { className: "side" },
    make("div", { className: "about" }, title, makeTags(image.tags)),
    ...makeStatus(image),
    score === undefined ? null : makeScore(score),
    actions,
    make("section", { className: "names", hidden: true, "aria-live": "polite" }),
    makeTable(translate("metadata"), Object.entries(image.metadata)),
    makeTable(null, listDetails(image)),
    make("a", { href: fileUrl(id), download: image.source ?? "", className: "quiet" }, translate("original")),
  );
}

function makeStatus({ status, error }) {
  if (status === "ready") return [];
  if (status !== "failed") return [make("p", { className: "muted" }, translate("waiting_picture"))];
  const reason = make("p", { className: "error" }, translate("failed_picture", { detail: describeError(error) }));
  return [reason, make("p", { className: "muted" }, translate("failed_help"))];
}

function makeScore(score) {
  const number = make("strong", {}, translate("score", { score: score.toFixed(3) }));
  return make("p", { className: "score-note" }, number, make("small", {}, translate("score_note")));
}

function makeTags(tags) {
  if (!tags.length) return null;
  const items = tags.map((tag) => make("li", { dir: "auto" }, tag));
  return make("ul", { className: "tags", ariaLabel: translate("tags") }, ...items);
}

function listDetails(image) {
  const shape = image.width ? `${image.width} × ${image.height}` : "–";
  const format = image.format.toUpperCase() + (image.animated ? `, ${translate("animated")}` : "");
  return [
    [translate("size"), `${shape} · ${formatBytes(image.bytes)}`],
    [translate("format"), format],
    [translate("source"), image.source ?? "–"],
    [translate("added"), formatDate(image.created_at)],
    [translate("id"), image.id],
  ];
}

function makeTable(title, pairs) {
  if (!pairs.length) return null;
  const list = make("dl");
  for (const [name, value] of pairs) {
    list.append(make("dt", { dir: "auto" }, name), make("dd", { dir: "auto" }, formatValue(value)));
  }
  return make("section", {}, title ? make("h3", {}, title) : null, list);
}

function formatValue(value) {
  if (Array.isArray(value) && value.every((one) => Object(one) !== one)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

async function showNames(id) {
  const section = byId("detail").querySelector(".names");
  const query = { q: "", like: [id], file: null, target: "texts", weight: EQUAL_WEIGHT };
  const content = await search(query, MAX_NAMES)
    .then(({ hits }) => (hits.length ? [make("ol", { className: "list" }, ...makeTextLines(hits))] : makeNoTexts(id)))
    .catch((problem) => [make("p", { className: "error" }, describeError(problem))]);
  section.replaceChildren(make("h3", {}, translate("names")), ...content);
  section.hidden = false;
}

function makeNoTexts(id) {
  return [make("p", { className: "muted" }, translate("no_texts")), makeTextForm(() => showNames(id))];
}

/** A button with the action's name, or with a symbol and the name as its label. */
function makeActionButton(action, symbol = null, properties = {}) {
  const className = symbol ? "icon-button" : action === "like" ? "button" : "button plain";
  const button = makeButton(className, symbol ?? translate(action), properties);
  if (symbol) Object.assign(button, { ariaLabel: translate(action), title: translate(action) });
  button.dataset.action = action;
  return button;
}

/** Edit the caption and tags; `onEnd(image)` gets the changed record, or null if the user cancels. */
function makeEditForm(image, onEnd) {
  const caption = make("textarea", { rows: 3, value: image.caption ?? "", dir: "auto" });
  const { field, readTags } = makeTagField(image.tags);
  const title = make("h2", { className: "visually-hidden" }, translate("edit"));
  const form = makeForm([title, makeLabel(translate("caption"), caption), field], {
    label: translate("save"),
    cancel: () => onEnd(null),
    submit: async () => {
      const change = { caption: caption.value.trim() || null, tags: readTags() };
      onEnd(await updateImage(image.id, change, image.collection));
    },
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return form;
}

/** A list of tags with an input for more. Each tag is an element of its own, so that it may contain a comma. */
function makeTagField(tags) {
  const list = make("ul", { className: "tags" });
  const hint = translate("add_tag");
  const input = make("input", { type: "text", dir: "auto", placeholder: hint, ariaLabel: hint });
  const listTags = () => [...list.children].map((one) => one.dataset.tag);
  const addTag = (tag) => {
    if (!tag || listTags().includes(tag)) return;
    const remove = makeButton("", "×", { ariaLabel: translate("remove_tag", { tag }) });
    const item = make("li", {}, make("span", { dir: "auto" }, tag), remove);
    item.dataset.tag = tag;
    remove.addEventListener("click", () => {
      item.remove();
      input.focus();
    });
    list.append(item);
  };
  const takeInput = () => {
    addTag(input.value.trim());
    input.value = "";
  };
  tags.forEach(addTag);
  input.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" && !event.ctrlKey && !event.metaKey) || event.key === "," || event.key === "，") {
      if (event.isComposing || (event.key === "Enter" && !input.value.trim())) return;
      event.preventDefault();
      takeInput();
    } else if (event.key === "Backspace" && !input.value) list.lastElementChild?.remove();
  });
  const field = make("fieldset", {}, make("legend", {}, translate("tags")), list, input);
  return { field, readTags: () => (takeInput(), listTags()) };
}
