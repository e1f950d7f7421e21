// Adding pictures: one upload with its progress, then the job that takes them in, then what failed and why.
// Uploads stand in a panel of their own, so that searching goes on beside them.

import { byId, make } from "./element.js";
import { failedItems, problemOf } from "./server.js";
import { bytes, words } from "./words.js";

const RUNNING = ["queued", "running"];

export function upload(files, finished) {
  const card = makeCard(files);
  const request = new XMLHttpRequest();
  const body = new FormData();
  for (const file of files) body.append("files", file);
  request.upload.addEventListener("progress", (event) => {
    card.progress(event.loaded, event.total);
    const sent = { done: bytes(event.loaded), total: bytes(event.total) };
    card.say(event.loaded < event.total ? words("sending", sent) : words("checking"));
  });
  request.addEventListener("load", () => {
    if (request.status === 202) follow(request.response.id, card, finished);
    else card.end(problemOf(request.status, request.response).detail || words("not_sent"), true);
  });
  request.addEventListener("error", () => card.end(words("not_sent"), true));
  request.addEventListener("abort", () => card.end(words("cancelled")));
  request.open("POST", "v1/images/bulk");
  request.responseType = "json";
  card.stop = () => request.abort();
  request.send(body);
}

function follow(id, card, finished) {
  card.stop = null;
  const events = new EventSource(`v1/jobs/${id}/events`);
  events.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    const done = job.done + job.failed + job.duplicates;
    card.progress(done, job.total);
    card.say(describe(job, done));
    if (RUNNING.includes(job.state)) return;
    events.close();
    card.end(summary(job), job.failed > 0);
    if (job.failed) showFailures(id, card.failures);
    finished();
  });
}

function describe(job, done) {
  let text = words("working", { done, total: job.total });
  if (job.rate) text += words("rate", { rate: Math.round(job.rate) || 1 });
  if (job.eta_s > 1) text += words("eta", { s: Math.round(job.eta_s) });
  return text;
}

function summary(job) {
  const parts = [words("added_n", { n: job.done })];
  if (job.duplicates) parts.push(words("duplicates_n", { n: job.duplicates }));
  if (job.failed) parts.push(words("failed_n", { n: job.failed }));
  return parts.join(" · ");
}

async function showFailures(job, list, cursor = null) {
  const page = await failedItems(job, cursor).catch(() => null);
  if (!page) return;
  list.hidden = false;
  for (const item of page.items) {
    const name = make("b", { dir: "auto" }, item.name);
    list.append(make("li", {}, name, make("span", {}, item.error?.detail ?? "")));
  }
  if (!page.next_cursor) return;
  const more = make("button", { type: "button", className: "quiet" }, words("more_failures"));
  const line = make("li", {}, more);
  more.addEventListener("click", () => {
    line.remove();
    showFailures(job, list, page.next_cursor);
  });
  list.append(line);
}

function makeCard(files) {
  const title = files.length === 1 ? files[0].name : words("many_files", { n: files.length });
  const bar = make("progress", { max: 1, value: 0, "aria-label": title });
  const text = make("p", { role: "status" }, words("sending", { done: bytes(0), total: bytes(sizeOf(files)) }));
  const failures = make("ul", { hidden: true, tabIndex: 0, "aria-label": words("failed_n", { n: "" }) });
  const button = make("button", { type: "button", className: "quiet" }, words("cancel"));
  const head = make("div", { className: "head" }, make("strong", { dir: "auto" }, title), button);
  const element = make("section", { className: "upload" }, head, bar, text, failures);
  const place = byId("uploads");
  const card = {
    failures,
    stop: null,
    ended: false,
    progress: (done, total) => Object.assign(bar, { max: total || 1, value: done }),
    say: (said) => (text.textContent = said),
    end(said, bad = false) {
      card.ended = true;
      text.textContent = said;
      bar.hidden = true;
      element.classList.toggle("bad", bad);
      button.textContent = words("close");
    },
  };
  button.addEventListener("click", () => {
    if (!card.ended && card.stop) card.stop();
    else {
      element.remove();
      place.hidden = !place.childElementCount;
    }
  });
  place.prepend(element);
  place.hidden = false;
  return card;
}

function sizeOf(files) {
  return files.reduce((sum, file) => sum + file.size, 0);
}
