// The dialog that shows one picture large, with a strip of similar pictures, and beside it what is known of it: the user
// writes the caption and the tags in place. The address decides which picture is open, so this module reports to main.js.

import { deleteVideo, fileUrl, listFrames, search, thumbnailUrl, videoUrl } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { makeCaptionField } from "../components/caption_field.js";
import { copyText } from "../components/clipboard.js";
import { byId, make, makeButton } from "../components/dom.js";
import { canExplain, showExplanation } from "../components/explanation.js";
import { makeGeneratedCaption } from "../components/generated_caption.js";
import { hasSingleKeys } from "../components/keyboard.js";
import { makeQuestionForm } from "../components/question_form.js";
import { makeReadText } from "../components/read_text.js";
import { Stage } from "../components/stage.js";
import { makeTagField } from "../components/tag_field.js";
import { formatMoment, getName } from "../components/tile.js";
import { placeToast } from "../components/toast.js";
import { describeError, formatBytes, formatDate, formatWallTime, translate } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { isDeleted } from "../state/deletions.js";
import { EQUAL_WEIGHT, makeHref } from "../state/url_state.js";
import { hasTexts } from "./texts.js";

const MAX_LABELS = 5;
const SIMILAR = 12;
const HELD_MS = 600; // a key that is pressed longer was held
const SIMILAR_PAUSE_MS = 200; // a user who goes from picture to picture asks for nothing
let shown = null; // {hit, caption, tags}: the picture and its fields
let stage = null;
let listeners = {};
let pressedAt = 0; // when the key W went down
let similar = null; // an AbortController of the search for similar pictures

/**
 * `getQuery()`: the search that is shown. `onRemoveVideo(ids, remove)`: a video with these frames goes, by `remove()`. `onJudge(kind, id)`: the picture is "liked" or "unliked" as a hit of the search. `onStep(by)`: -1 to the previous, 1 to the next picture; `onShow(id)`: back to this picture; `onChange(image)` after a
 * change of its record.
 */
export function watchDetail(given) {
  listeners = given;
  const dialog = byId("detail");
  stage = new Stage({ onStep: (by) => leave(() => listeners.onStep(by)) });
  const strip = make("ul", { className: "strip", tabIndex: -1 });
  dialog.append(makeActionButton("close", "×"), make("div", { className: "viewer" }, stage.element, strip), make("div", { className: "side" }));
  dialog.addEventListener("close", () => {
    saveFields();
    similar?.abort();
    stage.clear();
    if (document.fullscreenElement) document.exitFullscreen();
    listeners.onClose();
  });
  dialog.addEventListener("cancel", (event) => {
    if (!event.target.matches("dialog") || !isChanged()) return;
    event.preventDefault();
    leave(() => dialog.close());
  });
  dialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (action) runAction(action);
  });
  dialog.addEventListener("keydown", handleKey);
  dialog.addEventListener("keyup", handleKeyUp);
}

/** `neighbours`: {previous, next}, whether there are such pictures. */
export function openDetail(hit, neighbours) {
  const dialog = byId("detail");
  const isSame = dialog.open && dialog.dataset.id === hit.id;
  const isKnown = isSame && JSON.stringify(shown.hit.image) === JSON.stringify(hit.image) && shown.hit.score === hit.score;
  stage.show(hit.image, neighbours);
  if (!isKnown && !(isSame && isEditing())) showPicture(hit, isSame);
  const { activeElement } = document;
  const keepsFocus = dialog.contains(activeElement) && !activeElement.disabled && activeElement.checkVisibility();
  if (!dialog.open) dialog.showModal();
  placeToast();
  if (!keepsFocus) dialog.querySelector("[data-action=close]").focus();
}

export function closeDetail() {
  const dialog = byId("detail");
  if (dialog.open) dialog.close();
}

function showPicture(hit, isSame) {
  const dialog = byId("detail");
  const close = dialog.querySelector("[data-action=close]");
  if (!isSame) saveFields(); // of the picture before
  dialog.dataset.id = hit.id;
  Object.assign(close, { ariaLabel: translate("close"), title: translate("close") });
  const { image } = hit;
  const canEdit = hasScope("write");
  const onChange = (changed) => {
    if (shown.hit.id === hit.id) shown.hit = { ...shown.hit, image: changed };
    listeners.onChange(changed);
  };
  const caption = makeCaptionField(image, { onChange, onReturn: ({ id }) => listeners.onShow(id) });
  const tags = makeTagField(image, { canEdit, onChange });
  const generated = makeGeneratedCaption(image, { canEdit, onChange });
  shown = { hit, caption, tags };
  const side = dialog.querySelector(".side");
  const isExplained = isSame && side.querySelector(".why")?.hidden === false; // it was drawn again, as a hit say
  side.replaceChildren(...makeSide(hit, caption, tags, generated, canEdit).filter(Boolean));
  if (isExplained) toggleExplanation();
  side.scrollTop = 0;
  if (!isSame) showSimilar(image);
}

function isEditing() {
  return isChanged() || document.activeElement?.matches("#detail :is(input, textarea)");
}

function isChanged() {
  return Boolean(shown && (shown.caption.isChanged() || shown.tags.isChanged()));
}

/** Whether the server has taken what the user wrote. */
async function saveFields() {
  if (!shown) return true;
  const { caption, tags } = shown;
  return (await Promise.all([caption.save(), tags.save()])).every(Boolean);
}

/** Go on to something else, but only when what the user wrote is saved. */
async function leave(go) {
  if (!isChanged() || (await saveFields())) go();
}

function runAction(action) {
  const { id } = shown.hit;
  const actions = {
    close: () => leave(() => byId("detail").close()),
    previous: () => leave(() => listeners.onStep(-1)),
    next: () => leave(() => listeners.onStep(1)),
    like: () => leave(() => listeners.onLike(id)),
    liked: () => leave(() => listeners.onJudge("liked", id)),
    unliked: () => leave(() => listeners.onJudge("unliked", id)),
    remove: () => listeners.onRemove(id),
    remove_video: () => removeVideo(shown.hit.image.video_id),
    labels: () => showLabels(id),
    why: () => toggleExplanation(),
    zoom_in: () => stage.zoomIn(),
    zoom_out: () => stage.zoomOut(),
    full_screen: () => stage.toggleFullScreen(),
  };
  actions[action]?.();
}

function handleKey(event) {
  const isControl = event.ctrlKey || event.metaKey;
  if (event.defaultPrevented || event.altKey || event.target.matches("input, textarea, video")) return;
  if (isControl && event.key.toLowerCase() === "z") return listeners.onUndo();
  if (isControl) return;
  const actions = { ArrowLeft: "previous", ArrowRight: "next" };
  if (!event.repeat && hasScope("write")) actions.Delete = "remove";
  if (hasSingleKeys()) Object.assign(actions, { ...(event.repeat ? {} : { w: "why" }), l: "like", "+": "zoom_in", "=": "zoom_in", "-": "zoom_out", f: "full_screen" });
  const action = actions[event.key] ?? actions[event.key.toLowerCase()];
  if (action === "why" && !pressedAt) pressedAt = event.timeStamp;
  if (action) runAction(action);
}

/** Show why the picture is a hit, or no longer. */
function toggleExplanation() {
  const button = byId("detail").querySelector("[data-action=why]");
  const section = byId("detail").querySelector(".why");
  if (!button) return;
  const isOn = section.hidden;
  button.ariaPressed = String(isOn);
  section.hidden = !isOn;
  if (isOn) showExplanation(section, shown.hit.id, listeners.getQuery(), stage);
  else stage.showHeat(null);
}

/** The key that was held long shows it only so long. */
function handleKeyUp(event) {
  if (event.key.toLowerCase() !== "w" || !pressedAt) return;
  if (event.timeStamp - pressedAt > HELD_MS && !byId("detail").querySelector(".why")?.hidden) toggleExplanation();
  pressedAt = 0;
}

function makeSide(hit, caption, tags, generated, canEdit) {
  const { id, image } = hit;
  const name = getName(image);
  const isTranslated = image.caption && name !== image.caption;
  const isHeadingShown = isTranslated || !canEdit;
  const title = make("h2", { dir: "auto", className: isHeadingShown ? "" : "visually-hidden" }, ...breakName(name));
  const isReady = image.status === "ready";
  const labels = makeActionButton("labels");
  labels.hidden = true;
  const why = isReady && canExplain(listeners.getQuery()) ? makeActionButton("why") : null;
  why?.setAttribute("aria-pressed", "false");
  if (isReady && canEdit) hasTexts().then((has) => (labels.hidden = !has));
  return [
    title,
    canEdit ? caption.element : null,
    generated,
    tags.element,
    ...makeStatus(image),
    make("div", { className: "buttons" }, isReady ? makeActionButton("like") : null, why, labels),
    make("section", { className: "why", hidden: true, "aria-live": "polite" }),
    hit.score === undefined ? null : make("div", { className: "buttons" }, makeActionButton("liked"), makeActionButton("unliked")),
    make("section", { className: "labels", hidden: true, "aria-live": "polite" }),
    makeReadText(image, hit.highlights?.ocr ?? [], stage),
    makeTable(translate("details"), [...listDetails(hit), [translate("id"), makeCopyable(image.id)]]),
    isReady ? makeQuestionForm(image) : null,
    makeTable(translate("metadata"), Object.entries(image.metadata).map(([key, value]) => [key, formatValue(value)])),
    make(
      "div",
      { className: "foot" },
      make("a", { href: fileUrl(id), download: image.source ?? "", className: "link" }, translate("original")),
      image.video_id ? make("a", { href: videoUrl(image.video_id), download: image.source ?? "", className: "link" }, translate("video_file")) : null,
      canEdit ? makeActionButton("remove", null, translate(image.video_id ? "remove_moment" : "remove")) : null,
      canEdit && image.video_id ? makeActionButton("remove_video") : null,
    ),
  ];
}

function makeStatus({ status, error }) {
  if (status === "ready") return [];
  if (status !== "failed") return [make("p", { className: "muted" }, translate("waiting_picture"))];
  const reason = make("p", { className: "error" }, translate("failed_picture", { detail: describeError(error ?? {}) }));
  return [reason, make("p", { className: "muted" }, translate("failed_help"))];
}

function listDetails({ image, score, highlights = {} }) {
  const found = Object.entries(highlights).map(([place, words]) => `${translate(`found_${place}`)}: ${words.join(", ")}`);
  const names = image.source?.split("/") ?? [];
  const format = image.format.toUpperCase() + (image.animated ? `, ${translate("animated")}` : "");
  const shape = image.width ? `${image.width} × ${image.height} · ` : "";
  return [
    [translate("moment"), image.video_id && formatMoment(image.t_ms)],
    [translate("source"), names.length && breakName(names.at(-1))],
    [translate("folder"), names.length > 1 && breakName(names.slice(0, -1).join("/"))],
    [translate("size"), `${shape}${formatBytes(image.bytes)} · ${format}`],
    [translate("taken_at"), image.taken_at && formatWallTime(image.taken_at)],
    [translate("camera"), image.camera],
    [translate("lens"), image.lens],
    [translate("location"), image.location && makeLocation(image.location)],
    [translate("added"), formatDate(image.created_at)],
    [translate("found_in"), found.join(" · ")],
    [translate("match"), score !== undefined && make("span", { title: translate("score_title") }, score.toFixed(3))],
  ].filter(([, value]) => value);
}

/** Let a long name break at its own joints, before it breaks inside a word. */
function breakName(name) {
  return name.split(/(?<=[/_\- ])|(?=\.)/u).flatMap((part, n) => (n ? [make("wbr"), part] : [part]));
}

/** `rows`: [name, value] each; a value is a text, a node, or a list of them. */
function makeTable(title, rows) {
  if (!rows.length) return null;
  const list = make("dl");
  for (const [name, value] of rows) {
    list.append(make("dt", { dir: "auto" }, name), make("dd", { dir: "auto" }, ...[value].flat()));
  }
  return make("section", {}, make("h3", {}, title), list);
}

function formatValue(value) {
  if (Array.isArray(value) && value.every((one) => Object(one) !== one)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** As numbers: no map service learns where the pictures were taken. */
function makeLocation({ latitude, longitude }) {
  return makeCopyable(`${latitude.toFixed(5)}, ${longitude.toFixed(5)}`, "copy_location");
}

function makeCopyable(text, label = "copy_id") {
  const button = makeButton("link", translate("copy"), { ariaLabel: translate(label) });
  button.addEventListener("click", () => copyText(text, "copied"));
  return [make("span", { className: "id" }, text), " ", button];
}

/** The labels of the collection that match the picture, each with what one can do with it. */
async function showLabels(id) {
  const section = byId("detail").querySelector(".labels");
  const { caption, tags } = shown;
  const query = { q: "", like: [id], file: null, target: "texts", weight: EQUAL_WEIGHT };
  const content = await search(query, MAX_LABELS)
    .then(({ hits }) => make("ol", {}, ...hits.map(({ text }) => makeLabel(text.text, caption, tags))))
    .catch((problem) => make("p", { className: "error" }, describeError(problem)));
  section.replaceChildren(make("h3", {}, translate("labels_title")), content);
  section.hidden = false;
  byId("detail").querySelector("[data-action=labels]").hidden = true;
}

function makeLabel(text, caption, tags) {
  const asCaption = makeButton("link", translate("as_caption"), { ariaLabel: translate("as_caption_one", { text }) });
  const asTag = makeButton("link", translate("as_tag"), { ariaLabel: translate("as_tag_one", { text }) });
  asCaption.addEventListener("click", () => caption.set(text));
  asTag.addEventListener("click", () => tags.add(text));
  return make("li", {}, make("span", { dir: "auto" }, text), asCaption, asTag);
}

async function removeVideo(video) {
  const collection = currentCollection();
  const frames = await listFrames(video).catch(() => [shown.hit]);
  listeners.onRemoveVideo(frames.map(({ id }) => id), () => deleteVideo(video, collection));
}

/** The strip keeps its height, so that the picture above it does not move. */
async function showSimilar(image) {
  const strip = byId("detail").querySelector(".strip");
  similar?.abort();
  const request = (similar = new AbortController());
  strip.replaceChildren();
  strip.ariaLabel = translate(image.video_id ? "moments_of_video" : "like");
  strip.hidden = image.status !== "ready";
  if (strip.hidden) return;
  await new Promise((resolve) => setTimeout(resolve, SIMILAR_PAUSE_MS));
  if (request.signal.aborted) return;
  const others = image.video_id ? await findMoments(image, request.signal) : await findSimilar(image, request.signal);
  if (request.signal.aborted) return;
  strip.replaceChildren(...others.map(image.video_id ? makeMoment : makeSimilar));
  strip.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  strip.hidden = !others.length;
}

async function findSimilar(image, signal) {
  const query = { q: "", like: [image.id], file: null, target: "images", weight: EQUAL_WEIGHT };
  const { hits } = await search(query, SIMILAR + 1, signal).catch(() => ({ hits: [] }));
  return hits.filter(({ id }) => id !== image.id && !isDeleted(id)).slice(0, SIMILAR);
}

/** All frames of the video, in the order of their times. */
async function findMoments({ id, video_id }, signal) {
  const frames = await listFrames(video_id, signal).catch(() => []);
  return frames.filter((one) => !isDeleted(one.id)).map((image) => ({ id: image.id, image, isCurrent: image.id === id }));
}

function makeMoment({ id, image, isCurrent }) {
  const time = formatMoment(image.t_ms);
  const picture = make("img", { src: thumbnailUrl(id), alt: translate("at_moment", { time }), loading: "lazy" });
  const link = make("a", { href: makeHref({ show: id }), className: "to-picture" }, picture, make("span", { className: "moment" }, time));
  if (isCurrent) link.setAttribute("aria-current", "true");
  link.dataset.id = id;
  return make("li", {}, link);
}

function makeSimilar({ id, image }) {
  const name = getName(image);
  const link = make("a", { href: makeHref({ show: id }), className: "to-picture", title: name }, make("img", { src: thumbnailUrl(id), alt: name, loading: "lazy" }));
  link.dataset.id = id;
  return make("li", {}, link);
}

/** A button with the action's name, or with a symbol and the name as its label. */
function makeActionButton(action, symbol = null, name = translate(action)) {
  const className = { like: "button", remove: "danger-link", remove_video: "danger-link" }[action] ?? "button plain";
  const button = makeButton(symbol ? "icon-button" : className, symbol ?? name);
  if (symbol) Object.assign(button, { ariaLabel: name, title: name });
  button.dataset.action = action;
  return button;
}
