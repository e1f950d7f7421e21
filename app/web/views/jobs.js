// The jobs of a collection, each with its progress, its result, and the reason of every failure. Server-sent events
// update the running ones. The page offers to cancel, pause, resume and retry where the server can.

import { controlJob, followJob, getFirstItemName, hasRoute, isUnfinished, listJobs } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { showProblem } from "../components/banner.js";
import { byId, make, makeButton } from "../components/dom.js";
import { makeFailureList, showFailures } from "../components/failure_list.js";
import { formatDate, formatTimeLeft, translate } from "../i18n/i18n.js";
import { describeOutcome } from "./upload.js";

const MAX_STREAMS = 2; // a browser opens six connections to a server
const REFRESH_MS = 3000; // to find the jobs that others start
const ACTIONS = ["retry", "cancel", "pause", "resume"];
const rows = new Map(); // job id -> row
const streams = new Map(); // job id -> function that stops it
const visibility = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.dataset.id);
    if (row && isIntersecting) loadName(row, target.dataset.id);
  }
});
let opened = null; // an AbortController while the view is open
let timer = 0;
let canReport = false;
let isAllowed = {}; // action -> whether the server has it and the key may use it

export async function openJobs() {
  if (opened) return;
  const current = (opened = new AbortController());
  byId("jobs").hidden = false;
  canReport = await hasRoute("/v1/jobs/{id}/pause"); // servers got the report and pausing in the same version
  for (const action of ACTIONS) isAllowed[action] = hasScope("write") && (await hasRoute(`/v1/jobs/{id}/${action}`));
  if (current === opened) refresh();
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
    const { jobs } = await listJobs(current.signal);
    if (current !== opened) return;
    byId("no-jobs").hidden = jobs.length > 0;
    byId("job-list").hidden = !jobs.length;
    for (const job of [...jobs].reverse()) showJob(job);
    followRunning(jobs);
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
  Object.assign(row, { failed: job.failed, total: job.total });
  const isActive = isUnfinished(job);
  const processed = job.done + job.failed + job.duplicates;
  row.element.dataset.state = job.failed && job.state === "succeeded" ? "partly" : job.state;
  row.state.textContent = translate(`state_${row.element.dataset.state}`);
  Object.assign(row.bar, { max: job.total || 1, value: processed, hidden: !isActive });
  row.status.textContent = isActive ? describeProgress(job, processed) : describeOutcome([job]);
  row.toggle.hidden = !job.failed;
  showToggle(row);
  showButtons(row, job);
  if (row.isVisible) loadName(row, job.id);
  showName(row);
}

function showButtons({ buttons, report }, { state, failed, total }) {
  const isActive = isUnfinished({ state });
  const isPaused = state === "paused";
  const isFitting = { retry: !isActive && failed, cancel: isActive, pause: isActive && !isPaused, resume: isPaused };
  for (const action of ACTIONS) buttons[action].hidden = !isFitting[action] || !isAllowed[action];
  report.hidden = !canReport || !total;
}

/** The button that shows or hides the failures. */
function showToggle({ toggle, failures, failed }) {
  toggle.textContent = translate(failures.hidden ? "show_failures" : "hide_failures", { n: failed });
  toggle.ariaExpanded = String(!failures.hidden);
}

/** Load the name of a visible job; a job that has just started has none yet. */
async function loadName(row, id) {
  row.isVisible = true;
  if (row.firstName || row.isLoadingName || !row.total) return;
  row.isLoadingName = true;
  row.firstName = await getFirstItemName(id).catch(() => null);
  row.isLoadingName = false;
  showName(row);
}

function showName({ name, firstName, total }) {
  const isUrl = /^https?:\/\//.test(firstName);
  const [folder, ...rest] = isUrl ? [firstName] : (firstName ?? translate("upload")).split("/");
  const isWhole = rest.length || total < 2 || !firstName;
  name.textContent = isWhole ? folder : translate("and_more", { name: folder, n: total - 1 });
}

function describeProgress(job, processed) {
  const parts = [translate("working", { done: processed, total: job.total })];
  if (job.failed) parts.push(translate("failed_n", { n: job.failed }));
  if (job.state === "paused") return parts.join(" · ");
  if (job.rate) parts.push(translate("rate", { rate: Math.round(job.rate) || 1 }));
  if (job.eta_s > 1) parts.push(formatTimeLeft(job.eta_s));
  return parts.join(" · ");
}

function makeRow({ id, created_at }) {
  const shortId = id.slice(0, 8);
  const name = make("strong", { className: "name", dir: "auto" });
  const state = make("span", { className: "state" });
  const time = make("time", { dateTime: created_at }, formatDate(created_at));
  const head = make("div", { className: "head" }, name, state, time, make("code", {}, shortId));
  const bar = make("progress", { ariaLabel: translate("job_progress") });
  const status = make("p", { className: "status" });
  const toggle = makeButton("link", "");
  const buttons = Object.fromEntries(ACTIONS.map((action) => [action, makeButton("button plain", translate(action))]));
  const href = `v1/jobs/${id}/items?format=ndjson`;
  const report = make("a", { className: "link", href, download: `job-${shortId}.ndjson` }, translate("report"));
  const allButtons = make("div", { className: "buttons" }, toggle, ...Object.values(buttons), report);
  const failures = makeFailureList();
  const element = make("li", { className: "job" }, head, bar, status, allButtons, failures);
  element.dataset.id = id;
  const row = { element, name, state, bar, status, toggle, buttons, report, failures, failed: 0, total: 0 };
  Object.assign(row, { firstName: null, isVisible: false, isLoadingName: false });
  toggle.addEventListener("click", async () => {
    if (failures.hidden) await showFailures(id, failures);
    else failures.replaceChildren();
    failures.hidden = !failures.childElementCount;
    showToggle(row);
  });
  for (const action of ACTIONS) buttons[action].addEventListener("click", () => runAction(id, action));
  return row;
}

async function runAction(id, action) {
  try {
    const job = await controlJob(id, action);
    const { failures } = rows.get(id);
    failures.replaceChildren();
    failures.hidden = true;
    showJob(job);
    refresh();
  } catch (problem) {
    showProblem(problem, refresh);
  }
}
