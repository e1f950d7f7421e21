// The jobs: each with how far it is, what became of its pictures, and for each failure why. Those that run move by
// server-sent events; cancelling and trying again are offered where the server offers them.

import { byId, make } from "../components/dom.js";
import { failureList, showFailures } from "../components/failure_list.js";
import { act, firstName, follow, isRunning, listJobs, offers } from "../api/client.js";
import * as notice from "../components/banner.js";
import { may } from "../api/session.js";
import { summary } from "./upload.js";
import { date, left, words } from "../i18n/i18n.js";

const STREAMS = 2; // at once: a browser opens six connections to a server
const AGAIN = 3000; // ms between looks at the list, for jobs that others begin
const rows = new Map(); // id -> what is drawn
const streams = new Map(); // id -> stop
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.dataset.id);
    if (row && isIntersecting) findName(row, target.dataset.id);
  }
});
let timer = 0;
let open = null; // an AbortController while the view is open
const ACTS = ["retry", "cancel", "pause", "resume"];
let offered = {}; // which of these the server has

export async function openJobs() {
  if (open) return;
  const mine = (open = new AbortController());
  byId("jobs").hidden = false;
  offered.report = await offers("/v1/jobs/{id}/pause"); // they came together
  for (const one of ACTS) offered[one] = may("write") && (await offers(`/v1/jobs/{id}/${one}`));
  if (mine === open) look();
}

export function closeJobs() {
  if (!open) return;
  open.abort();
  open = null;
  clearTimeout(timer);
  streams.forEach((stop) => stop());
  streams.clear();
  rows.clear();
  seen.disconnect();
  byId("jobs").hidden = true;
  byId("job-list").replaceChildren();
}

/** Draw everything anew, in another language say. */
export function redrawJobs() {
  if (!open) return;
  closeJobs();
  openJobs();
}

async function look() {
  const mine = open;
  clearTimeout(timer);
  try {
    const { jobs } = await listJobs(mine.signal);
    if (mine !== open) return;
    byId("no-jobs").hidden = jobs.length > 0;
    byId("job-list").hidden = !jobs.length;
    for (const job of [...jobs].reverse()) draw(job);
    listen(jobs);
    timer = setTimeout(look, AGAIN);
  } catch (problem) {
    if (mine === open) notice.tellProblem(problem, look);
  }
}

function listen(jobs) {
  const running = jobs.filter((job) => isRunning(job) && job.state !== "paused").reverse(); // oldest first: that one is being worked on
  for (const { id } of running) {
    if (streams.has(id) || streams.size >= STREAMS) continue;
    const stop = follow(id, (job) => {
      draw(job);
      if (isRunning(job)) return;
      streams.delete(id);
      look();
    });
    streams.set(id, stop);
  }
}

function draw(job) {
  let row = rows.get(job.id);
  if (!row) {
    row = makeRow(job);
    rows.set(job.id, row);
    byId("job-list").prepend(row.element);
    seen.observe(row.element);
  }
  const running = isRunning(job);
  const gone = job.done + job.failed + job.duplicates;
  row.element.dataset.state = job.failed && job.state === "succeeded" ? "partly" : job.state;
  row.state.textContent = words(`state_${row.element.dataset.state}`);
  Object.assign(row.bar, { max: job.total || 1, value: gone, hidden: !running });
  row.said.textContent = running ? moving(job, gone) : summary([job]);
  row.why.hidden = !job.failed;
  row.why.textContent = words(row.failures.hidden ? "show_failures" : "hide_failures", { n: job.failed });
  row.why.ariaExpanded = String(!row.failures.hidden);
  const paused = job.state === "paused";
  row.acts.retry.hidden = running || !job.failed || !offered.retry;
  row.acts.cancel.hidden = !running || !offered.cancel;
  row.acts.pause.hidden = !running || paused || !offered.pause;
  row.acts.resume.hidden = !paused || !offered.resume;
  row.report.hidden = !offered.report || !job.total;
  row.failed = job.failed;
  row.total = job.total;
  if (row.seen) findName(row, job.id);
  showName(row);
}

/** Ask for the name of what is in sight; a job that has just begun has none yet. */
async function findName(row, id) {
  row.seen = true;
  if (row.first || row.asking || !row.total) return;
  row.asking = true;
  row.first = await firstName(id).catch(() => null);
  row.asking = false;
  showName(row);
}

function showName({ name, first, total }) {
  const [top, ...below] = /^https?:\/\//.test(first) ? [first] : (first ?? words("upload")).split("/");
  name.textContent = below.length || total < 2 || !first ? top : words("and_more", { name: top, n: total - 1 });
}

function moving(job, gone) {
  const said = [words("working", { done: gone, total: job.total })];
  if (job.failed) said.push(words("failed_n", { n: job.failed }));
  if (job.state === "paused") return said.join(" · ");
  if (job.rate) said.push(words("rate", { rate: Math.round(job.rate) || 1 }));
  if (job.eta_s > 1) said.push(left(job.eta_s));
  return said.join(" · ");
}

function makeRow(job) {
  const when = make("time", { dateTime: job.created_at }, date(job.created_at));
  const name = make("strong", { className: "name", dir: "auto" });
  const state = make("span", { className: "state" });
  const bar = make("progress", { ariaLabel: words("job_progress") });
  const said = make("p", { className: "said" });
  const why = button("link", "");
  const acts = Object.fromEntries(ACTS.map((one) => [one, button("button plain", words(one))]));
  const report = make("a", { className: "link", href: `v1/jobs/${job.id}/items?format=ndjson`, download: `job-${job.id.slice(0, 8)}.ndjson` }, words("report"));
  const failures = failureList();
  const head = make("div", { className: "head" }, name, state, when, make("code", {}, job.id.slice(0, 8)));
  const element = make("li", { className: "job" }, head, bar, said, make("div", { className: "acts" }, why, ...Object.values(acts), report));
  element.append(failures);
  element.dataset.id = job.id;
  const row = { element, name, state, bar, said, why, acts, report, failures, failed: 0, total: 0, first: null, seen: false, asking: false };
  why.addEventListener("click", async () => {
    if (failures.hidden) await showFailures(job.id, failures);
    else failures.replaceChildren();
    failures.hidden = !failures.childElementCount;
    why.textContent = words(failures.hidden ? "show_failures" : "hide_failures", { n: row.failed });
    why.ariaExpanded = String(!failures.hidden);
  });
  for (const one of ACTS) acts[one].addEventListener("click", () => ask(job.id, one));
  return row;
}

async function ask(id, action) {
  try {
    const job = await act(id, action);
    const { failures } = rows.get(id);
    failures.replaceChildren();
    failures.hidden = true;
    draw(job);
    look();
  } catch (problem) {
    notice.tellProblem(problem, look);
  }
}

function button(className, text) {
  return make("button", { type: "button", className }, text);
}
