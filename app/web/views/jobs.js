// What was added to a collection and when: each job with its progress, its result, and why files failed. Server-sent events
// update the running ones. A key that may write can cancel, pause, resume and retry.

import { controlJob, followJob, getFirstItemName, isUnfinished, listJobs } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { updateActivity } from "../components/activity_badge.js";
import { showProblem } from "../components/banner.js";
import { byId, make, makeButton } from "../components/dom.js";
import { canRetry, makeFailureList } from "../components/failure_list.js";
import { formatDate, formatDuration, formatTimeLeft, translate, translateCount } from "../i18n/i18n.js";
import { getJobName, nameJob } from "../state/own_jobs.js";
import { makeHref } from "../state/url_state.js";
import { describeOutcome } from "./upload.js";
import { clearWatches, refreshWatches } from "./watches.js";

const MAX_STREAMS = 2; // a browser opens six connections to a server
const REFRESH_MS = 3000; // to find the jobs that others start
// Kinds of jobs that are no imports, with their names.
const TASKS = {
  auto_tags: "task_auto_tags",
  camera_data: "task_camera_data",
  duplicates: "task_duplicates",
  evaluate: "task_evaluate",
  reembed: "task_reembed",
  teach: "task_teach",
};
const ACTIONS = ["retry", "cancel", "pause", "resume"];
const rows = new Map(); // job id -> row
const streams = new Map(); // job id -> function that stops it
const visibility = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.dataset.id);
    if (!row || !isIntersecting) continue;
    row.isVisible = true;
    loadName(row);
    loadFailures(row);
  }
});
let opened = null; // an AbortController while the view is open
let timer = 0;

export function openJobs() {
  if (opened) return;
  opened = new AbortController();
  byId("jobs").hidden = false;
  refresh();
}

export function closeJobs() {
  if (!opened) return;
  opened.abort();
  opened = null;
  clearTimeout(timer);
  streams.forEach((stop) => stop());
  streams.clear();
  rows.clear();
  visibility.disconnect();
  byId("jobs").hidden = true;
  byId("job-list").replaceChildren();
  clearWatches();
}

/** Draw everything again, after a change of the language. */
export function redrawJobs() {
  if (!opened) return;
  closeJobs();
  openJobs();
}

async function refresh() {
  const current = opened;
  clearTimeout(timer);
  try {
    const [{ jobs }, watches] = await Promise.all([listJobs(current.signal), refreshWatches(current.signal)]);
    if (current !== opened) return;
    byId("no-jobs").hidden = jobs.length + watches > 0;
    byId("job-list").hidden = !jobs.length;
    for (const job of [...jobs].reverse()) showJob(job);
    followRunning(jobs);
    updateActivity(jobs);
    timer = setTimeout(refresh, REFRESH_MS);
  } catch (problem) {
    if (current === opened) showProblem(problem, refresh);
  }
}

function followRunning(jobs) {
  const running = jobs.filter((job) => isUnfinished(job) && job.state !== "paused").reverse(); // the oldest is worked on
  for (const { id } of running) {
    if (streams.has(id) || streams.size >= MAX_STREAMS) continue;
    const stop = followJob(id, (job) => {
      showJob(job);
      if (isUnfinished(job)) return;
      streams.delete(id);
      refresh();
    });
    streams.set(id, stop);
  }
}

function showJob(job) {
  let row = rows.get(job.id);
  if (!row) {
    row = makeRow(job);
    rows.set(job.id, row);
    byId("job-list").prepend(row.element);
    visibility.observe(row.element);
  }
  row.job = job;
  const isActive = isUnfinished(job);
  const processed = job.done + job.failed + job.duplicates;
  row.element.dataset.state = job.failed && job.state === "succeeded" ? "partly" : job.state;
  row.state.textContent = translate(`state_${row.element.dataset.state}`);
  Object.assign(row.bar, { max: job.total || 1, value: processed, hidden: !isActive });
  row.status.replaceChildren(...(isActive ? [describeProgress(job, processed)] : describeEnd(job)));
  row.duration.textContent = describeDuration(job);
  row.results.hidden = !job.done || job.is_task;
  row.results.textContent = translateCount("show_added", job.done);
  showToggle(row);
  showButtons(row);
  if (row.isVisible) {
    loadName(row);
    loadFailures(row);
  }
  showName(row);
}

function showButtons({ job, buttons, report, failed }) {
  const isActive = isUnfinished(job);
  const isPaused = job.state === "paused";
  const canSucceed = Boolean(failed?.items.length) && canRetry(failed.items);
  const isFitting = { retry: !isActive && canSucceed, cancel: isActive, pause: isActive && !isPaused, resume: isPaused };
  for (const action of ACTIONS) buttons[action].hidden = !isFitting[action] || !hasScope("write");
  report.hidden = !job.total;
}

/** The button that shows or hides the failures. */
function showToggle({ toggle, failures, job, isFailuresOpen }) {
  toggle.hidden = !job.failed;
  toggle.textContent = translate(isFailuresOpen ? "hide_failures" : "show_failures", { n: job.failed });
  toggle.ariaExpanded = String(isFailuresOpen);
  failures.element.hidden = !isFailuresOpen || !job.failed;
}

/** Load the reasons of a visible job that has ended: they also decide whether it can be retried. */
async function loadFailures(row) {
  const { job, failures } = row;
  if (!job.failed || isUnfinished(job) || row.failed?.n === job.failed) return;
  const failed = (row.failed = { n: job.failed, items: [] });
  failures.clear();
  failed.items = await failures.load(job.id);
  showToggle(row);
  showButtons(row);
}

/** Load the name of a visible job; a job that has just started has none yet. */
async function loadName(row) {
  if (row.firstName || row.isLoadingName || !row.job.total || row.job.name || getJobName(row.job.id)) return;
  row.isLoadingName = true;
  row.firstName = await getFirstItemName(row.job.id).catch(() => null);
  row.isLoadingName = false;
  showName(row);
}

/** The name that it has in this browser or on the server, or the folder of its files, or the first of them. */
function showName({ name, firstName, job }) {
  if (job.is_task) return void (name.textContent = job.kind in TASKS ? translate(TASKS[job.kind]) : job.kind);
  const isUrl = /^https?:\/\//.test(firstName);
  const [folder, ...rest] = isUrl ? [firstName] : (firstName ?? translate("upload")).split("/");
  const isWhole = rest.length || job.total < 2 || !firstName;
  const derived = isWhole ? folder : translate("and_more", { name: folder, n: job.total - 1 });
  name.textContent = getJobName(job.id) ?? job.name ?? derived;
}

function describeEnd(job) {
  if (job.error) return [make("span", { className: "failed" }, job.error.detail)];
  return job.is_task ? [] : describeOutcome([job]);
}

function describeDuration({ started_at, finished_at }) {
  if (!started_at || !finished_at) return "";
  return formatDuration((new Date(finished_at) - new Date(started_at)) / 1000);
}

function describeProgress(job, processed) {
  const parts = [translate("working", { done: processed, total: job.total })];
  if (job.failed) parts.push(translate("failed_n", { n: job.failed }));
  if (job.state === "paused") return parts.join(" · ");
  if (job.rate) parts.push(translate("rate", { rate: Math.round(job.rate) || 1 }));
  if (job.eta_s > 1) parts.push(formatTimeLeft(job.eta_s));
  return parts.join(" · ");
}

function makeRow(job) {
  const { id, created_at, collection } = job;
  const name = make("strong", { className: "name", dir: "auto" });
  const state = make("span", { className: "state" });
  const time = make("time", { dateTime: created_at, title: translate("job_id", { id }) }, formatDate(created_at));
  const duration = make("span");
  const head = make("div", { className: "head" }, name, make("p", { className: "when" }, time, duration));
  const bar = make("progress", { ariaLabel: translate("job_progress") });
  const status = make("p", { className: "status" });
  const results = make("a", { className: "link to-results", href: makeHref({ collection, conditions: [["job", id]] }) });
  const toggle = makeButton("link", "");
  const buttons = Object.fromEntries(ACTIONS.map((action) => [action, makeButton("button plain", translate(action))]));
  const href = `v1/jobs/${id}/items?format=ndjson`;
  const report = make("a", { className: "link", href, download: `job-${id.slice(0, 8)}.ndjson` }, translate("report"));
  const allButtons = make("div", { className: "buttons" }, results, toggle, report, ...Object.values(buttons));
  const failures = makeFailureList();
  const outcome = make("div", { className: "outcome" }, make("p", {}, state), status, bar);
  const element = make("li", { className: "job" }, head, outcome, allButtons, failures.element);
  element.dataset.id = id;
  const row = { element, job, name, state, bar, status, duration, results, toggle, buttons, report, failures };
  Object.assign(row, { firstName: null, failed: null, isFailuresOpen: false, isVisible: false, isLoadingName: false });
  toggle.addEventListener("click", () => {
    row.isFailuresOpen = !row.isFailuresOpen;
    showToggle(row);
  });
  results.addEventListener("click", () => nameJob(id, name.textContent)); // the chip of the filter says it
  for (const action of ACTIONS) buttons[action].addEventListener("click", () => runAction(id, action));
  return row;
}

async function runAction(id, action) {
  try {
    const job = await controlJob(id, action);
    Object.assign(rows.get(id), { isFailuresOpen: false, failed: null });
    showJob(job);
    refresh();
  } catch (problem) {
    showProblem(problem, refresh);
  }
}
