// Groups of duplicates in the collection. The best picture of a group is kept unless the user chooses others; the rest is
// deleted with a way back. The kept picture gets the caption and tags that it lacks; what is lost all the same is said before.

import { findDuplicates, followJob, getJob, isUnfinished, listDuplicates, thumbnailUrl, updateImage } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { showProblem } from "../components/banner.js";
import { appendMoreButton, byId, make, makeButton } from "../components/dom.js";
import { getName } from "../components/tile.js";
import { formatBytes, formatDate, formatList, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { deleteWithUndo, isDeleted } from "../state/deletions.js";
import { makeHref } from "../state/url_state.js";

const KINDS = { near: "duplicates_near", exact: "duplicates_exact" }; // with their names
let opened = null; // an AbortController while the view is open
let kind = "near";
let groups = []; // {images: [{id, distance, image}], kept: Set of ids}, as far as they are loaded
let answer = null; // the last page
let stopFollowing = () => {};

export function openDuplicates() {
  if (opened) return;
  opened = new AbortController();
  byId("duplicates").hidden = false;
  byId("duplicate-kinds").replaceChildren(...Object.keys(KINDS).map(makeKind));
  byId("duplicates-scan").onclick = startScan;
  byId("duplicates-all").onclick = () => deleteOthers(groups);
  load();
}

export function closeDuplicates() {
  if (!opened) return;
  opened.abort();
  opened = null;
  stopFollowing();
  [groups, answer] = [[], null];
  byId("duplicates").hidden = true;
  byId("duplicate-list").replaceChildren();
}

/** Draw everything again, after a change of the language or of what is deleted. */
export function redrawDuplicates() {
  if (!opened) return;
  byId("duplicate-kinds").replaceChildren(...Object.keys(KINDS).map(makeKind));
  if (answer) showGroups();
}

function makeKind(name) {
  const field = make("input", { type: "radio", name: "duplicate-kind", value: name, checked: name === kind });
  field.addEventListener("change", () => {
    kind = name;
    load();
  });
  return make("label", {}, field, make("span", {}, translate(KINDS[name])));
}

async function load(cursor = null) {
  const current = opened;
  try {
    const page = await listDuplicates(kind, cursor, current.signal);
    if (current !== opened) return;
    const added = page.groups.map(({ images }) => ({ images, kept: new Set([images[0].id]) }));
    groups = cursor ? [...groups, ...added] : added;
    answer = page;
    showGroups();
    if (page.scan.job_id) follow(await getJob(page.scan.job_id));
  } catch (problem) {
    if (current === opened) showProblem(problem, () => load());
  }
}

async function startScan() {
  byId("duplicates-scan").disabled = true;
  try {
    follow(await findDuplicates());
  } catch (problem) {
    showProblem(problem, () => load());
  }
  byId("duplicates-scan").disabled = false;
}

function follow(job) {
  stopFollowing();
  showProgress(job);
  stopFollowing = followJob(job.id, (now) => {
    if (!opened) return;
    showProgress(now);
    if (!isUnfinished(now)) load();
  });
}

function showProgress(job) {
  const isActive = isUnfinished(job);
  Object.assign(byId("duplicates-progress"), { hidden: !isActive, max: job.total || 1, value: job.done });
  byId("duplicates-scan").hidden = isActive || !hasScope("write");
  if (isActive) byId("duplicates-status").textContent = translate("duplicates_running", { done: job.done, total: job.total });
  else if (job.error) byId("duplicates-status").textContent = job.error.detail;
}

function showGroups() {
  const { scan, next_cursor: cursor } = answer;
  const shown = groups.map(selectLeft).filter(({ images }) => images.length > 1);
  const isScanned = Boolean(scan.compared || scan.finished_at);
  if (!scan.job_id) {
    byId("duplicates-status").textContent = describeScan(scan, shown.length, isScanned);
    byId("duplicates-scan").hidden = !hasScope("write") || (isScanned && !scan.waiting);
    byId("duplicates-progress").hidden = true;
  }
  byId("duplicates-all").hidden = shown.length < 2 || !hasScope("write");
  byId("duplicates-all").textContent = translate("duplicates_delete_all", { n: countOthers(shown) });
  const focused = document.activeElement?.closest?.("#duplicate-list li")?.dataset.best;
  byId("duplicate-list").replaceChildren(...shown.map(makeGroup));
  if (cursor) appendMoreButton(byId("duplicate-list"), () => load(cursor));
  if (focused) focusGroup(focused);
}

/** After a deletion the focus goes to the next group, as the deleted one has left the list. */
function focusGroup(best) {
  const items = [...byId("duplicate-list").querySelectorAll("li[data-best]")];
  const item = items.find((one) => one.dataset.best === best) ?? items.find((one) => isAfter(one.dataset.best, best)) ?? items.at(-1);
  (item?.querySelector("button, input") ?? byId("duplicates-title")).focus();
}

function isAfter(one, other) {
  const order = groups.map(({ images }) => images[0].id);
  return order.indexOf(one) > order.indexOf(other);
}

/** The group without the pictures that are deleted. */
function selectLeft(group) {
  return { ...group, whole: group, images: group.images.filter(({ id }) => !isDeleted(id)) };
}

function countOthers(shown) {
  return shown.reduce((sum, { images, kept }) => sum + images.filter(({ id }) => !kept.has(id)).length, 0);
}

function describeScan(scan, shown, isScanned) {
  if (!isScanned) return translate("duplicates_not_scanned");
  const parts = [shown ? translateCount("duplicates_found", answer.total, { extra: answer.extra }) : translate("duplicates_none")];
  if (scan.waiting) parts.push(translateCount("duplicates_waiting", scan.waiting));
  return parts.join(" ");
}

function makeGroup(group) {
  const { images, kept } = group;
  const best = images.find(({ id }) => kept.has(id)) ?? images[0];
  const note = make("p", { className: "muted" });
  const remove = makeButton("button plain", "");
  remove.hidden = !hasScope("write");
  remove.addEventListener("click", () => deleteOthers([group]));
  const update = () => {
    const n = countOthers([group]);
    remove.textContent = translateCount("duplicates_delete", n);
    remove.disabled = !n || !images.some(({ id }) => kept.has(id));
    note.textContent = describeLoss(group);
  };
  const pictures = images.map((member) => makeMember(member, kept, update));
  const list = make("div", { className: "members", role: "group" }, ...pictures);
  list.ariaLabel = translate("duplicates_group", { name: getName(best.image), n: images.length });
  const item = make("li", { className: "duplicate-group" }, list, make("div", { className: "outcome" }, note, remove));
  item.dataset.best = group.whole.images[0].id;
  update();
  return item;
}

function makeMember({ id, distance, image }, kept, update) {
  const name = getName(image);
  const picture = make("img", { src: thumbnailUrl(id), alt: name, loading: "lazy", decoding: "async" });
  const link = make("a", { className: "to-picture", href: makeHref({ view: "duplicates", show: id }), title: image.source ?? "" }, picture);
  link.dataset.id = id;
  const field = make("input", { type: "checkbox", checked: kept.has(id) });
  field.ariaLabel = translate("duplicates_keep_one", { name, size: describeSize(image) });
  field.disabled = !hasScope("write");
  field.addEventListener("change", () => {
    if (field.checked) kept.add(id);
    else kept.delete(id);
    update();
  });
  const facts = make("span", { className: "facts" }, describeSize(image), make("br"), formatDate(image.created_at), make("br"), describeDistance(distance));
  return make("div", { className: "member" }, link, make("label", {}, field, make("span", {}, translate("duplicates_keep"))), facts);
}

function describeSize({ width, height, bytes, format }) {
  return `${width} × ${height} · ${format.toUpperCase()} · ${formatBytes(bytes)}`;
}

function describeDistance(distance) {
  if (!distance) return "";
  return answer.kind === "exact" ? translate("duplicates_bits", { n: distance }) : translate("duplicates_distance", { distance: distance.toFixed(3) });
}

/** What the first kept picture gets of the others, {change, lost}: a caption or tags that it lacks; what it cannot get is lost. */
function mergeAttributes({ images, kept }) {
  const others = images.filter(({ id }) => !kept.has(id)).map(({ image }) => image);
  const target = images.find(({ id }) => kept.has(id))?.image;
  if (!target) return { change: {}, lost: [] };
  const change = {};
  const captions = [...new Set(others.map(({ caption }) => caption).filter((caption) => caption && caption !== target.caption))];
  if (!target.caption && captions.length) change.caption = captions.shift();
  const tags = [...new Set([...target.tags, ...others.flatMap((image) => image.tags)])];
  if (tags.length > target.tags.length) change.tags = tags;
  const metadata = others.reduce((all, image) => ({ ...image.metadata, ...all }), { ...target.metadata });
  if (Object.keys(metadata).length > Object.keys(target.metadata).length) change.metadata = metadata;
  const differing = others.flatMap((image) => Object.entries(image.metadata)).filter(([key, value]) => JSON.stringify(metadata[key]) !== JSON.stringify(value));
  const lost = [...captions.map((caption) => `“${caption}”`), ...new Set(differing.map(([key, value]) => `${key}: ${JSON.stringify(value)}`))];
  return { target, change, lost };
}

function describeLoss(group) {
  const { target, change, lost } = mergeAttributes(group);
  if (!target) return translate("duplicates_keep_some");
  const moved = [];
  if (change.caption) moved.push(`“${change.caption}”`);
  if (change.tags) moved.push(...change.tags.filter((tag) => !target.tags.includes(tag)));
  if (change.metadata) moved.push(...Object.keys(change.metadata).filter((key) => !(key in target.metadata)));
  const parts = [];
  if (moved.length) parts.push(translate("duplicates_moved", { what: formatList(moved) }));
  if (lost.length) parts.push(translate("duplicates_lost", { what: formatList(lost) }));
  return parts.join(" ");
}

function deleteOthers(chosen) {
  const left = chosen.map((group) => selectLeft(group.whole ?? group)).filter((group) => group.images.some(({ id }) => group.kept.has(id)));
  const ids = left.flatMap(({ images, kept }) => images.filter(({ id }) => !kept.has(id)).map(({ id }) => id));
  const collection = currentCollection();
  const changes = left.map(mergeAttributes).filter(({ change }) => Object.keys(change).length);
  const keepAttributes = (options) => Promise.all(changes.map(({ target, change }) => updateImage(target.id, change, collection, options)));
  deleteWithUndo(ids, changes.length ? keepAttributes : null);
}
