// Uploads files in requests of moderate size, one after the other, so that the user can resend only a request that
// failed. The card of the upload follows its jobs in turn until the server has processed all. After a reload the page finds
// the uploads of this tab again.

import { followJob, getJob, isUnfinished, listDuplicateItems, makeProblem } from "../api/client.js";
import { signIn } from "../api/session.js";
import { updateActivity } from "../components/activity_badge.js";
import { byId, make, makeButton } from "../components/dom.js";
import { makeFailureList } from "../components/failure_list.js";
import { describeError, formatBytes, formatList, formatTimeLeft, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection, withCollection } from "../state/collection_context.js";
import { nameJob, readUploads, writeUploads } from "../state/own_jobs.js";
import { makeHref } from "../state/url_state.js";

const MAX_BATCH_FILES = 100;
const MAX_BATCH_BYTES = 64e6;
const MAX_LINES = 200; // of a card, the last ones
const MAX_OPEN_LINES = 5; // more are folded away
const HIDE_MS = 20_000; // a card without failures leaves by itself
let sending = Promise.resolve(); // one request at a time, because parallel ones would only share the bandwidth
let following = Promise.resolve(); // one event stream at a time, because a browser opens six connections to a server
let unsent = 0; // batches
const uploads = new Set(); // those whose card is on the page

window.addEventListener("beforeunload", (event) => unsent && event.preventDefault());

/** Upload files; `onPictures(isComplete)` when pictures have arrived. */
export function uploadFiles({ items, skipped = {} }, onPictures) {
  const upload = makeUpload(describeFiles(items), onPictures, { skipped, batches: splitIntoBatches(items) });
  if (!items.length) return upload.card.end([translate("nothing_to_send"), describeSkipped(Object.entries(skipped))], { isError: true });
  if (items.length <= MAX_LINES) for (const item of items) item.line = item.isSidecar ? null : upload.card.addLine(item.name);
  start(upload, upload.batches);
}

/** Follow a job that did not begin with an upload from this page. */
export function watchJob(job, title, onPictures) {
  nameJob(job.id, title);
  resume(makeUpload(title, onPictures, { batches: [makeBatch(job)] }));
}

/** Follow the uploads of this tab that the server was still processing when the page was left. */
export async function resumeUploads(onPictures) {
  for (const { title, collection, jobs, unsent: lost } of readUploads()) {
    const found = await Promise.all(jobs.map((id) => getJob(id).catch(() => null)));
    const batches = found.filter(Boolean).map(makeBatch);
    if (batches.length) resume(makeUpload(title, onPictures, { collection, batches, lost }));
  }
}

function resume(upload) {
  upload.card.hideCancel();
  remember();
  updateActivity();
  for (const batch of upload.batches) following = following.then(() => follow(upload, batch));
}

/** `lost`: how many files the server did not get before the page was left. */
function makeUpload(title, onPictures, { batches, skipped = {}, lost = 0, collection = currentCollection() }) {
  const upload = { title, batches, skipped, lost, onPictures, collection, isCancelled: false, request: null, retryIn: 0 };
  for (const other of uploads) if (other.isEnded && !other.hasUnsent) other.card.close();
  upload.card = makeCard(title, {
    onCancel: () => cancel(upload),
    onSendAgain: () => sendAgain(upload),
    onClose: () => (uploads.delete(upload), remember()),
  });
  uploads.add(upload);
  return upload;
}

function makeBatch(job = null) {
  return { items: [], bytes: 0, sent: 0, job };
}

/** The items that the server counts: a text beside a picture is none. */
function countable(items) {
  return items.filter(({ isSidecar }) => !isSidecar);
}

/** The folder of the files, or the name of the first one. */
function describeFiles(all) {
  const items = countable(all);
  if (!items.length) return translate("upload");
  const [folder, ...rest] = items[0].name.split("/");
  const isOne = items.length === 1 || (rest.length && items.every(({ name }) => name.startsWith(`${folder}/`)));
  return isOne ? folder : translate("and_more", { name: items[0].name, n: items.length - 1 });
}

/** Keep for a reload which uploads the server is still processing. */
function remember() {
  const running = [...uploads].filter((upload) => !upload.isEnded);
  writeUploads(running.map(({ title, collection, batches, lost }) => ({
    title,
    collection,
    jobs: listJobsOf(batches).map(({ id }) => id),
    unsent: lost + sum(batches.filter((batch) => !batch.job), ({ items }) => countable(items).length),
  })));
}

/** The jobs of some batches; several batches may belong to one job. */
function listJobsOf(batches) {
  return [...new Map(batches.filter(({ job }) => job).map(({ job }) => [job.id, job])).values()];
}

/** An archive goes in a batch of its own, a text beside a picture in that of its picture. */
function splitIntoBatches(items) {
  const batches = [];
  let open = null;
  for (const item of items) {
    const isFull = !open || open.items.length >= MAX_BATCH_FILES || open.bytes + item.file.size > MAX_BATCH_BYTES;
    if (item.isArchive || (isFull && !(open && item.isSidecar))) batches.push((open = makeBatch()));
    open.items.push(item);
    open.bytes += item.file.size;
    if (item.isArchive) open = null;
  }
  return batches;
}

function start(upload, batches) {
  for (const batch of batches) {
    unsent++;
    const sent = (sending = sending.then(() => sendBatch(upload, batch)).finally(() => unsent--));
    following = Promise.all([following, sent]).then(() => follow(upload, batch));
  }
}

function cancel(upload) {
  upload.isCancelled = true;
  upload.request?.abort();
}

function sendAgain(upload) {
  upload.isCancelled = false;
  upload.isEnded = false;
  const batches = upload.batches.filter((batch) => !batch.job);
  for (const batch of batches) {
    Object.assign(batch, { problem: null, sent: 0, isEnded: false });
    for (const item of batch.items) item.line?.setStatus(translate("waiting"));
  }
  start(upload, batches);
}

/** Send a batch until the server accepts or refuses it, and wait while the server is busy. */
async function sendBatch(upload, batch) {
  while (!upload.isCancelled) {
    for (const item of batch.items) if (!item.isSidecar) item.line ??= upload.card.addLine(item.name);
    const { job, problem } = await postBatch(upload, batch);
    if (problem?.status === 401) {
      await signIn();
      continue;
    }
    Object.assign(batch, { job, problem });
    upload.retryIn = problem?.status === 429 || problem?.status === 503 ? problem.seconds : 0;
    if (!upload.retryIn) break;
    batch.sent = 0;
    showProgress(upload);
    await new Promise((resolve) => setTimeout(resolve, upload.retryIn * 1000));
  }
  upload.retryIn = 0;
  for (const { line } of batch.items) line?.setStatus(translate(batch.job ? "processing_file" : "not_sent"), "muted");
  if (batch.job) nameJob(batch.job.id, upload.title);
  remember();
  updateActivity();
  showProgress(upload);
}

/** Uses XMLHttpRequest because fetch does not report the progress of an upload. Gives {job, problem}, one of them null. */
async function postBatch(upload, batch) {
  const [before] = listJobsOf(upload.batches);
  const path = before ? `v1/images/bulk?job=${before.id}` : "v1/images/bulk";
  const request = (upload.request = new XMLHttpRequest());
  const body = new FormData();
  for (const { file, name } of batch.items) body.append("files", file, name);
  return new Promise((resolve) => {
    const fail = (problem) => resolve({ job: null, problem });
    request.upload.addEventListener("progress", (event) => {
      batch.sent = (event.loaded / event.total) * batch.bytes;
      showSent(batch);
      showProgress(upload);
    });
    request.addEventListener("load", () => {
      if (request.status === 202) return resolve({ job: request.response, problem: null });
      const seconds = Number(request.getResponseHeader("Retry-After")) || 1;
      fail(makeProblem(request.status, request.response, seconds));
    });
    request.addEventListener("error", () => fail(null));
    request.addEventListener("abort", () => fail(null));
    request.open("POST", withCollection(path, upload.collection));
    request.responseType = "json";
    request.send(body);
  });
}

/** Show how much of each file is sent. The files of a request go one after the other. */
function showSent(batch) {
  let before = 0;
  for (const { file, line } of batch.items) {
    const share = Math.min(Math.max((batch.sent - before) / Math.max(file.size, 1), 0), 1);
    line?.setProgress(share);
    if (share > 0) line?.setStatus(translate(share < 1 ? "sending_file" : "sent_file"));
    before += file.size;
  }
}

async function follow(upload, batch) {
  if (batch.job) {
    await new Promise((resolve) => {
      const stop = followJob(batch.job.id, (job) => {
        for (const one of upload.batches) if (one.job?.id === job.id) one.job = job;
        showProgress(upload);
        if (job.done && !upload.hasPictures) reportFirstPictures(upload);
        if (!isUnfinished(job)) resolve(stop());
      });
    });
  }
  batch.isEnded = true;
  showProgress(upload);
  if (upload.batches.every((one) => one.isEnded)) end(upload);
}

/** Link each file that was there already to its picture. */
async function showDuplicates(upload, { id }) {
  const { items } = await listDuplicateItems(id).catch(() => ({ items: [] }));
  for (const { name, image_id } of items.filter((item) => item.image_id)) {
    upload.card.addDuplicate(name, makeHref({ collection: upload.collection, show: image_id }));
  }
}

/** `counts`: [suffix, n] each, of files that are neither pictures nor archives. */
function describeSkipped(counts) {
  const kinds = counts.map(([suffix, n]) => (suffix || translate("no_suffix")) + (n > 1 ? `: ${n.toLocaleString()}` : ""));
  return translateCount("skipped", sum(counts, ([, n]) => n), { list: formatList(kinds) });
}

function reportFirstPictures(upload) {
  upload.hasPictures = true;
  upload.onPictures(false);
}

function showProgress(upload) {
  const { batches, card } = upload;
  const size = sum(batches, (batch) => batch.bytes);
  const sent = sum(batches, (batch) => (batch.job ? batch.bytes : batch.sent));
  const jobs = listJobsOf(batches);
  const processed = sum(jobs, (job) => job.done + job.failed + job.duplicates);
  const files = sum(batches, ({ items }) => countable(items).length);
  const total = Math.max(sum(jobs, (job) => job.total), files); // an archive holds more pictures than files
  const share = total ? processed / total : 0;
  card.setProgress(size ? (sent / size + share) / 2 : share);
  const parts = [];
  if (upload.retryIn) parts.push(translate("busy_upload", { s: upload.retryIn }));
  else if (sent < size) parts.push(translate("sending", { done: formatBytes(sent), total: formatBytes(size) }));
  if (processed || sent >= size) parts.push(translate("working", { done: processed, total }));
  const running = jobs.findLast((job) => job.state === "running" && job.rate);
  if (running) parts.push(translate("rate", { rate: Math.round(running.rate) || 1 }));
  if (running?.eta_s > 1 && sent >= size) parts.push(formatTimeLeft(running.eta_s));
  card.setStatus(parts.join(" · "));
}

async function end(upload) {
  const jobs = listJobsOf(upload.batches);
  const unsentBatches = upload.batches.filter((batch) => !batch.job);
  const files = upload.lost + sum(unsentBatches, (batch) => countable(batch.items).length);
  const parts = jobs.length ? listOutcome(jobs) : [];
  if (files) parts.push(makeFailed(translate(upload.isCancelled ? "cancelled_n" : "unsent_n", { n: files })));
  const skipped = Object.entries(upload.skipped);
  if (skipped.length) parts.push(describeSkipped(skipped));
  const hasFailed = jobs.some((job) => job.failed || job.state === "failed");
  upload.isEnded = true;
  upload.hasUnsent = unsentBatches.length > 0;
  upload.card.end(parts, {
    isError: hasFailed || files > 0,
    hasUnsent: upload.hasUnsent,
    href: makeHref({ collection: upload.collection, conditions: [["job", jobs.map(({ id }) => id).join(",")]] }),
    added: sum(jobs, (job) => job.done),
  });
  remember();
  updateActivity();
  for (const job of jobs.filter(({ duplicates }) => duplicates)) await showDuplicates(upload, job);
  if (jobs.length) upload.onPictures(true);
  const reason = translate(upload.isCancelled ? "not_sent_cancelled" : "not_sent_broken");
  for (const { items, problem } of unsentBatches) {
    const error = problem?.detail ? problem : { detail: reason };
    upload.card.failures.add(countable(items).map(({ name }) => ({ name, error })));
  }
  for (const job of jobs) if (job.failed) await upload.card.failures.load(job.id);
}

/** What became of some jobs, with dots between; what failed is an element. */
export function describeOutcome(jobs) {
  return separate(listOutcome(jobs));
}

function separate(parts) {
  return parts.flatMap((part, n) => (n ? [" · ", part] : [part]));
}

function makeFailed(text) {
  return make("span", { className: "failed" }, text);
}

function listOutcome(jobs) {
  const [added, duplicates, failed] = ["done", "duplicates", "failed"].map((field) => sum(jobs, (job) => job[field]));
  const parts = [translate("added_n", { n: added })];
  if (duplicates) parts.push(translate("duplicates_n", { n: duplicates }));
  if (failed) parts.push(makeFailed(translate("failed_n", { n: failed })));
  const skipped = jobs.flatMap((job) => Object.entries(job.left_out ?? {}));
  if (skipped.length) parts.push(describeSkipped(skipped));
  if (jobs.some((job) => job.state === "cancelled")) parts.push(translate("cancelled"));
  return parts;
}

function sum(items, getNumber) {
  return items.reduce((total, item) => total + getNumber(item), 0);
}

/** The card of one upload: while it runs its progress and a line for each file, then one line and the failures. */
function makeCard(title, { onCancel, onSendAgain, onClose }) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: title });
  const status = make("p", { role: "status" });
  const lines = make("ul", { className: "files", tabIndex: 0, ariaLabel: translate("files") });
  const folded = make("details", { hidden: true }, make("summary", {}, translate("files")), lines);
  const failures = makeFailureList();
  const button = makeButton("quiet", translate("cancel")); // "×" after the end
  const sendAgain = makeButton("button", translate("send_again"), { hidden: true });
  const duplicates = make("ul", { className: "duplicates", hidden: true, ariaLabel: translate("already_there") });
  const link = make("a", { className: "link to-results", hidden: true });
  const head = make("div", { className: "head" }, make("strong", { dir: "auto", title }, title), link, button);
  const card = make("section", { className: "upload", ariaLabel: title }, head, bar, status, sendAgain, folded, duplicates, failures.element);
  const all = byId("uploads");
  let isEnded = false;
  let timer = 0;
  const close = () => {
    clearTimeout(timer);
    card.remove();
    all.hidden = !all.childElementCount;
    onClose();
  };
  const hideLater = () => {
    const isUsed = card.matches(":hover, :focus-within") || document.hidden;
    timer = setTimeout(() => (isUsed ? hideLater() : close()), HIDE_MS);
  };
  button.addEventListener("click", () => (isEnded ? close() : onCancel()));
  sendAgain.addEventListener("click", () => {
    isEnded = false;
    failures.clear();
    for (const one of [sendAgain, link]) one.hidden = true;
    for (const one of [bar, folded]) one.hidden = false;
    card.classList.remove("error", "ended");
    Object.assign(button, { textContent: translate("cancel"), ariaLabel: null });
    onSendAgain();
  });
  all.prepend(card);
  all.hidden = false;
  return {
    failures,
    close,
    addLine(name) {
      const n = lines.childElementCount;
      folded.hidden = false;
      if (n === 0 || n === MAX_OPEN_LINES) folded.open = n === 0;
      if (n >= MAX_LINES) lines.firstElementChild.remove();
      return addLine(lines, name);
    },
    addDuplicate(name, href) {
      const item = make("li", {}, make("a", { className: "link", dir: "auto", href }, name), ` ${translate("already_there")}`);
      duplicates.append(item);
      duplicates.hidden = false;
      clearTimeout(timer); // it stays for the user to look at
    },
    setProgress: (share) => (bar.value = share),
    setStatus: (text) => status.textContent !== text && (status.textContent = text),
    hideCancel: () => (button.hidden = true),
    end(parts, { isError = false, hasUnsent = false, href = "", added = 0 } = {}) {
      isEnded = true;
      status.replaceChildren(...separate(parts));
      for (const one of [bar, folded]) one.hidden = true;
      sendAgain.hidden = !hasUnsent;
      Object.assign(link, { href, hidden: !added, textContent: translateCount("show_new", added) });
      Object.assign(button, { hidden: false, textContent: "×", ariaLabel: translate("close") });
      card.classList.add("ended");
      card.classList.toggle("error", isError);
      if (!isError) hideLater();
    },
  };
}

function addLine(lines, name) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: name });
  const status = make("span", { className: "status" }, translate("waiting"));
  const element = make("li", {}, make("b", { dir: "auto", title: name }, name), status, bar);
  lines.append(element);
  return {
    setProgress: (share) => (bar.value = share),
    /** `kind`: "" while the file is on its way, then "muted". */
    setStatus(text, kind = "") {
      status.textContent = text;
      element.className = kind;
      bar.hidden = kind !== "";
    },
  };
}
