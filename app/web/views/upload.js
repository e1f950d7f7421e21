// Adding pictures: files go in requests of moderate size, one after the other, so that one that breaks off can be sent
// again by itself; each becomes a job, followed in turn until everything is taken in or has said why not.

import { makeCard, MOST_LINES } from "../components/upload_card.js";
import { showFailures } from "../components/failure_list.js";
import { here, within } from "../state/collection_context.js";
import { call, follow, isRunning, problemOf } from "../api/client.js";
import { signIn } from "../api/session.js";
import { bytes, counted, left, words } from "../i18n/i18n.js";

const MOST_FILES = 100; // of one request
const MOST_BYTES = 64e6;
const STEP = 1000;
let sending = Promise.resolve(); // one request at a time: more would only share the line
let following = Promise.resolve(); // one stream of events at a time: a browser opens six connections to a server
let unsent = 0;

window.addEventListener("beforeunload", (event) => unsent && event.preventDefault());

export function upload({ items, left = 0 }, finished) {
  const title = items.length === 1 ? items[0].name : counted("many_files", items.length);
  const round = { items, left, finished, collection: here(), stopped: false, request: null, busy: 0 };
  round.batches = batchesOf(items);
  round.card = makeCard(title, { stop: () => stop(round), again: () => again(round) });
  if (!items.length) return round.card.end(words("nothing_to_send", { n: left }), { bad: true });
  if (items.length <= MOST_LINES) items.forEach((item) => (item.line = round.card.line(item.name)));
  start(round, round.batches);
}

/** Follow a job that began without an upload from here. */
export function watchJob(job, title, finished) {
  const batch = { items: [], job, bytes: 0, sent: 0 };
  const round = { items: [], left: 0, finished, batches: [batch] };
  round.card = makeCard(title, { stop() {}, again() {} });
  round.card.stoppable(false);
  following = following.then(() => followed(round, batch));
}

function batchesOf(items) {
  const batches = [];
  let open = null;
  for (const item of items) {
    const full = !open || open.items.length >= MOST_FILES || open.bytes + item.file.size > MOST_BYTES;
    if (item.archive || full) batches.push((open = { items: [], bytes: 0, sent: 0, job: null }));
    open.items.push(item);
    open.bytes += item.file.size;
    if (item.archive) open = null;
  }
  return batches;
}

function start(round, batches) {
  for (const batch of batches) {
    unsent++;
    const sent = (sending = sending.then(() => deliver(round, batch)).finally(() => unsent--));
    following = Promise.all([following, sent]).then(() => followed(round, batch));
  }
}

function stop(round) {
  round.stopped = true;
  round.request?.abort();
}

function again(round) {
  round.stopped = false;
  const batches = round.batches.filter((batch) => !batch.job);
  for (const batch of batches) {
    Object.assign(batch, { problem: null, sent: 0 });
    for (const item of batch.items) item.line?.say(words("waiting"));
  }
  start(round, batches);
}

async function deliver(round, batch) {
  while (!round.stopped) {
    for (const item of batch.items) item.line ??= round.card.line(item.name);
    const answer = await send(round, batch);
    if (answer.problem?.status === 401) {
      await signIn();
      continue;
    }
    batch.job = answer.job;
    batch.problem = answer.problem;
    round.busy = answer.problem?.status === 429 || answer.problem?.status === 503 ? answer.problem.seconds : 0;
    if (!round.busy) break;
    batch.sent = 0;
    update(round);
    await new Promise((resolve) => setTimeout(resolve, round.busy * STEP));
  }
  round.busy = 0;
  for (const { line } of batch.items) {
    if (batch.job) line?.say(words("being_taken_in"), "soft");
    else line?.say(batch.problem?.detail || words(round.stopped ? "not_sent_stopped" : "not_sent_broken"), "bad");
  }
  update(round);
}

function send(round, batch) {
  const request = (round.request = new XMLHttpRequest());
  const body = new FormData();
  for (const { file, name } of batch.items) body.append("files", file, name);
  return new Promise((resolve) => {
    const failed = (problem) => resolve({ job: null, problem });
    request.upload.addEventListener("progress", (event) => {
      batch.sent = (event.loaded / event.total) * batch.bytes;
      showSent(batch);
      update(round);
    });
    request.addEventListener("load", () => {
      if (request.status === 202) return resolve({ job: request.response, problem: null });
      const seconds = Number(request.getResponseHeader("Retry-After")) || 1;
      failed(problemOf(request.status, request.response, seconds));
    });
    request.addEventListener("error", () => failed(null));
    request.addEventListener("abort", () => failed(null));
    request.open("POST", within("v1/images/bulk", round.collection));
    request.responseType = "json";
    request.send(body);
  });
}

function showSent(batch) {
  let before = 0; // files go one after the other, so what was sent says which are
  for (const { file, line } of batch.items) {
    const share = Math.min(Math.max((batch.sent - before) / Math.max(file.size, 1), 0), 1);
    line?.progress(share);
    if (share > 0) line?.say(share < 1 ? words("sending_file") : words("sent_file"));
    before += file.size;
  }
}

async function followed(round, batch) {
  if (batch.job) {
    await new Promise((resolve) => {
      const stopFollowing = follow(batch.job.id, (job) => {
        batch.job = job;
        update(round);
        if (job.done && !round.begun) begun(round);
        if (!isRunning(job)) resolve(stopFollowing());
      });
    });
    await settle(round, batch);
  }
  batch.ended = true;
  update(round);
  if (round.batches.every((one) => one.ended)) end(round);
}

/** The first pictures are there. */
function begun(round) {
  round.begun = true;
  round.finished(false);
}

/** Say of each file what became of it. An archive's members are not among the files: its failures stand below. */
async function settle(round, batch) {
  const { id, failed } = batch.job;
  const loose = batch.items.length && !batch.items[0].archive;
  if (failed && !loose) await showFailures(id, round.card.failures);
  if (!loose) {
    for (const { line } of batch.items) line?.say(summary([batch.job]), failed ? "bad" : "soft");
    return;
  }
  const { items } = await call(`v1/jobs/${id}/items?limit=1000`).catch(() => ({ items: [] }));
  for (const item of batch.items) {
    const at = items.findIndex((one) => one.name === item.name);
    const [became] = at < 0 ? [null] : items.splice(at, 1);
    if (became?.status === "failed") item.line?.say(became.error?.detail ?? "", "bad");
    else {
      item.line?.say(words(became?.status === "duplicate" ? "already_there" : "taken_in"), "soft");
      round.card.drop(item.line);
    }
  }
}

function update(round) {
  const size = round.batches.reduce((sum, batch) => sum + batch.bytes, 0);
  const sent = round.batches.reduce((sum, batch) => sum + (batch.job ? batch.bytes : batch.sent), 0);
  const jobs = round.batches.map((batch) => batch.job).filter(Boolean);
  const gone = jobs.reduce((sum, job) => sum + job.done + job.failed + job.duplicates, 0);
  const total = round.batches.reduce((sum, { job, items }) => sum + Math.max(job?.total ?? 0, items.length), 0);
  const taken = total ? gone / total : 0;
  round.card.progress(size ? (sent / size + taken) / 2 : taken);
  const said = [];
  if (round.busy) said.push(words("busy_upload", { s: round.busy }));
  else if (sent < size) said.push(words("sending", { done: bytes(sent), total: bytes(size) }));
  if (gone || sent >= size) said.push(words("working", { done: gone, total }));
  const now = jobs.findLast((job) => job.state === "running" && job.rate);
  if (now) said.push(words("rate", { rate: Math.round(now.rate) || 1 }));
  if (now?.eta_s > 1 && sent >= size) said.push(left(now.eta_s));
  round.card.say(said.join(" · "));
}

function end(round) {
  const jobs = round.batches.map((batch) => batch.job).filter(Boolean);
  const lost = round.batches.filter((batch) => !batch.job);
  const files = lost.reduce((sum, batch) => sum + batch.items.length, 0);
  const said = jobs.length ? [summary(jobs)] : [];
  if (files) said.push(round.stopped ? words("stopped_n", { n: files }) : words("unsent_n", { n: files }));
  const why = lost.find((batch) => batch.problem?.detail)?.problem.detail;
  if (why) said.push(why);
  if (round.left) said.push(words("left_out", { n: round.left }));
  const failed = jobs.some((job) => job.failed || job.state === "failed");
  round.card.end(said.join(" · "), { bad: failed || files > 0, unsent: files > 0 });
  if (jobs.length) round.finished(true);
}

export function summary(jobs) {
  const sum = (name) => jobs.reduce((all, job) => all + job[name], 0);
  const parts = [words("added_n", { n: sum("done") })];
  if (sum("duplicates")) parts.push(words("duplicates_n", { n: sum("duplicates") }));
  if (sum("failed")) parts.push(words("failed_n", { n: sum("failed") }));
  if (jobs.some((job) => job.state === "cancelled")) parts.push(words("cancelled"));
  return parts.join(" · ");
}
