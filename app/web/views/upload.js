// Uploads files in requests of moderate size, one after the other, so that the user can resend only a request that
// failed. Each request becomes a job; the card of the upload follows the jobs in turn until the server has processed all.

import { followJob, isUnfinished, listJobItems, makeProblem } from "../api/client.js";
import { signIn } from "../api/session.js";
import { byId, make, makeButton } from "../components/dom.js";
import { makeFailureList, showFailures } from "../components/failure_list.js";
import { describeError, formatBytes, formatTimeLeft, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection, withCollection } from "../state/collection_context.js";

const MAX_BATCH_FILES = 100;
const MAX_BATCH_BYTES = 64e6;
const MAX_LINES = 200; // of a card; a longer upload keeps those of files that are in progress or failed
let sending = Promise.resolve(); // one request at a time, because parallel ones would only share the bandwidth
let following = Promise.resolve(); // one event stream at a time, because a browser opens six connections to a server
let unsent = 0; // batches

window.addEventListener("beforeunload", (event) => unsent && event.preventDefault());

/** Upload files; `onPictures(isComplete)` when pictures have arrived. */
export function uploadFiles({ items, skipped = 0 }, onPictures) {
  const title = items.length === 1 ? items[0].name : translateCount("many_files", items.length);
  const upload = { skipped, onPictures, collection: currentCollection(), isCancelled: false, request: null, retryIn: 0 };
  upload.batches = splitIntoBatches(items);
  upload.card = makeCard(title, { onCancel: () => cancel(upload), onSendAgain: () => sendAgain(upload) });
  if (!items.length) return upload.card.end(translate("nothing_to_send", { n: skipped }), { isError: true });
  if (items.length <= MAX_LINES) items.forEach((item) => (item.line = upload.card.addLine(item.name)));
  start(upload, upload.batches);
}

/** Follow a job that did not begin with an upload from this page. */
export function watchJob(job, title, onPictures) {
  const batch = { items: [], job, bytes: 0, sent: 0 };
  const upload = { skipped: 0, onPictures, batches: [batch] };
  upload.card = makeCard(title, { onCancel() {}, onSendAgain() {} });
  upload.card.hideCancel();
  following = following.then(() => follow(upload, batch));
}

/** An archive goes in a batch of its own. */
function splitIntoBatches(items) {
  const batches = [];
  let open = null;
  for (const item of items) {
    const isFull = !open || open.items.length >= MAX_BATCH_FILES || open.bytes + item.file.size > MAX_BATCH_BYTES;
    if (item.isArchive || isFull) batches.push((open = { items: [], bytes: 0, sent: 0, job: null }));
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
  const batches = upload.batches.filter((batch) => !batch.job);
  for (const batch of batches) {
    Object.assign(batch, { problem: null, sent: 0 });
    for (const item of batch.items) item.line?.setStatus(translate("waiting"));
  }
  start(upload, batches);
}

/** Send a batch until the server accepts or refuses it, and wait while the server is busy. */
async function sendBatch(upload, batch) {
  while (!upload.isCancelled) {
    for (const item of batch.items) item.line ??= upload.card.addLine(item.name);
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
  const reason = batch.problem?.detail
    ? describeError(batch.problem)
    : translate(upload.isCancelled ? "not_sent_cancelled" : "not_sent_broken");
  for (const { line } of batch.items) {
    if (batch.job) line?.setStatus(translate("processing_file"), "muted");
    else line?.setStatus(reason, "error");
  }
  showProgress(upload);
}

/** Uses XMLHttpRequest because fetch does not report the progress of an upload. Gives {job, problem}, one of them null. */
function postBatch(upload, batch) {
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
    request.open("POST", withCollection("v1/images/bulk", upload.collection));
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
        batch.job = job;
        showProgress(upload);
        if (job.done && !upload.hasPictures) reportFirstPictures(upload);
        if (!isUnfinished(job)) resolve(stop());
      });
    });
    await showOutcomes(upload, batch);
  }
  batch.isEnded = true;
  showProgress(upload);
  if (upload.batches.every((one) => one.isEnded)) end(upload);
}

function reportFirstPictures(upload) {
  upload.hasPictures = true;
  upload.onPictures(false);
}

/** Show the outcome of each file. For an archive, show the failures of its members in a list. */
async function showOutcomes(upload, batch) {
  const { id, failed } = batch.job;
  const hasFiles = batch.items.length && !batch.items[0].isArchive;
  if (failed && !hasFiles) await showFailures(id, upload.card.failures);
  if (!hasFiles) {
    for (const { line } of batch.items) line?.setStatus(describeOutcome([batch.job]), failed ? "error" : "muted");
    return;
  }
  const { items } = await listJobItems(id).catch(() => ({ items: [] }));
  for (const { name, line } of batch.items) {
    const index = items.findIndex((one) => one.name === name);
    const [outcome] = index < 0 ? [null] : items.splice(index, 1);
    if (outcome?.status === "failed") line?.setStatus(describeError(outcome.error), "error");
    else {
      line?.setStatus(translate(outcome?.status === "duplicate" ? "already_there" : "file_added"), "muted");
      upload.card.removeLine(line);
    }
  }
}

function showProgress(upload) {
  const { batches, card } = upload;
  const size = sum(batches, (batch) => batch.bytes);
  const sent = sum(batches, (batch) => (batch.job ? batch.bytes : batch.sent));
  const jobs = batches.map((batch) => batch.job).filter(Boolean);
  const processed = sum(jobs, (job) => job.done + job.failed + job.duplicates);
  const total = sum(batches, ({ job, items }) => Math.max(job?.total ?? 0, items.length));
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

function end(upload) {
  const jobs = upload.batches.map((batch) => batch.job).filter(Boolean);
  const lost = upload.batches.filter((batch) => !batch.job);
  const files = sum(lost, (batch) => batch.items.length);
  const parts = jobs.length ? [describeOutcome(jobs)] : [];
  if (files) parts.push(translate(upload.isCancelled ? "cancelled_n" : "unsent_n", { n: files }));
  const problem = lost.find((batch) => batch.problem?.detail)?.problem;
  if (problem) parts.push(describeError(problem));
  if (upload.skipped) parts.push(translate("skipped_n", { n: upload.skipped }));
  const hasFailed = jobs.some((job) => job.failed || job.state === "failed");
  upload.card.end(parts.join(" · "), { isError: hasFailed || files > 0, hasUnsent: files > 0 });
  if (jobs.length) upload.onPictures(true);
}

export function describeOutcome(jobs) {
  const [added, duplicates, failed] = ["done", "duplicates", "failed"].map((field) => sum(jobs, (job) => job[field]));
  const parts = [translate("added_n", { n: added })];
  if (duplicates) parts.push(translate("duplicates_n", { n: duplicates }));
  if (failed) parts.push(translate("failed_n", { n: failed }));
  if (jobs.some((job) => job.state === "cancelled")) parts.push(translate("cancelled"));
  return parts.join(" · ");
}

function sum(items, getNumber) {
  return items.reduce((total, item) => total + getNumber(item), 0);
}

/** The card of one upload: its progress, a line for each file, and the failures with their reasons. */
function makeCard(title, { onCancel, onSendAgain }) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: title });
  const status = make("p", { role: "status" });
  const lines = make("ul", { className: "files", hidden: true, tabIndex: 0, ariaLabel: translate("files") });
  const failures = makeFailureList();
  const button = makeButton("quiet", translate("cancel")); // "Close" after the end
  const sendAgain = makeButton("button", translate("send_again"), { hidden: true });
  const head = make("div", { className: "head" }, make("strong", { dir: "auto" }, title), button);
  const card = make("section", { className: "upload" }, head, bar, status, sendAgain, lines, failures);
  const uploads = byId("uploads");
  let isEnded = false;
  button.addEventListener("click", () => {
    if (!isEnded) return onCancel();
    card.remove();
    uploads.hidden = !uploads.childElementCount;
  });
  sendAgain.addEventListener("click", () => {
    isEnded = false;
    sendAgain.hidden = true;
    bar.hidden = false;
    card.classList.remove("error");
    button.textContent = translate("cancel");
    onSendAgain();
  });
  uploads.prepend(card);
  uploads.hidden = false;
  return {
    failures,
    addLine: (name) => addLine(lines, name),
    removeLine: (line) => lines.childElementCount > MAX_LINES && line.element.remove(),
    setProgress: (share) => (bar.value = share),
    setStatus: (text) => status.textContent !== text && (status.textContent = text),
    hideCancel: () => (button.hidden = true),
    end(text, { isError = false, hasUnsent = false } = {}) {
      isEnded = true;
      status.textContent = text;
      bar.hidden = true;
      sendAgain.hidden = !hasUnsent;
      button.hidden = false;
      card.classList.toggle("error", isError);
      button.textContent = translate("close");
    },
  };
}

function addLine(lines, name) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: name });
  const status = make("span", { className: "status" }, translate("waiting"));
  const element = make("li", {}, make("b", { dir: "auto", title: name }, name), status, bar);
  lines.append(element);
  lines.hidden = false;
  return {
    element,
    setProgress: (share) => (bar.value = share),
    /** `kind`: "" while the file is on its way, then "muted" or "error". */
    setStatus(text, kind = "") {
      status.textContent = text;
      element.className = kind;
      bar.hidden = kind !== "";
    },
  };
}
