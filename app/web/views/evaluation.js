// How good the search is in the open collection: measured on its captions by a job of the server, shown in the dialog of
// the collections with the texts that find their picture last.

import { followJob, isUnfinished, listJobs, startEvaluation, thumbnailUrl } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { byId, make, makeButton } from "../components/dom.js";
import { describeError, formatDate, translate } from "../i18n/i18n.js";
import { makeHref } from "../state/url_state.js";

const SHOWN_MISSES = 6;
let stop = () => {};

export function watchEvaluation() {
  byId("evaluation").addEventListener("toggle", () => (byId("evaluation").open ? load() : stop()));
  byId("collections").addEventListener("close", () => (byId("evaluation").open = false));
}

/** Show the newest evaluation of the collection; follow one that runs. */
async function load() {
  stop();
  show(make("p", { className: "muted" }, translate("evaluation_note")));
  try {
    const { jobs } = await listJobs();
    const isShown = (job) => isUnfinished(job) || job.error || job.result?.source === "captions";
    showJob(jobs.find((job) => job.kind === "evaluate" && isShown(job)) ?? null);
  } catch (problem) {
    showProblem(problem);
  }
}

function show(...nodes) {
  byId("evaluation-body").replaceChildren(...nodes.filter(Boolean));
}

function showProblem(problem) {
  show(make("p", { className: "error", role: "alert" }, describeError(problem)), makeStart("evaluation_start"));
}

function showJob(job) {
  if (job?.error) return showProblem(job.error);
  if (job && isUnfinished(job)) {
    const bar = make("progress", { max: job.total || 1, value: job.done, ariaLabel: translate("evaluation_runs") });
    show(make("p", { className: "muted", role: "status" }, translate("evaluation_runs")), bar);
    return followOnce(job.id);
  }
  if (!job) return show(make("p", { className: "muted" }, translate("evaluation_note")), makeStart("evaluation_start"));
  show(...describeResult(job), makeStart("evaluation_again"));
}

function followOnce(id) {
  stop();
  stop = followJob(id, (job) => {
    const bar = byId("evaluation-body").querySelector("progress");
    if (isUnfinished(job) && bar) return Object.assign(bar, { max: job.total || 1, value: job.done });
    stop();
    showJob(job);
  });
}

function makeStart(label) {
  if (!hasScope("write")) return null;
  const button = makeButton("button plain", translate(label));
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      showJob(await startEvaluation());
    } catch (problem) {
      showProblem(problem);
    }
  });
  return make("div", { className: "buttons" }, button);
}

function describeResult({ result, finished_at }) {
  const { text_to_image: texts, image_to_text: pictures, misses, warnings } = result;
  const made = make("p", { className: "muted" }, translate("evaluation_of", { n: result.n, model: result.model, date: formatDate(finished_at) }));
  const told = warnings.filter(({ code }) => code !== "captions_searched").map((warning) => make("p", { className: "muted" }, describeError(warning)));
  return [make("p", {}, describeRecall(texts)), makeTable([["evaluation_texts", texts], ["evaluation_pictures", pictures]]), made, ...told, ...describeMisses(misses.text_to_image)];
}

/** "8 of 10 captions find their picture among the first 10." */
function describeRecall(figures) {
  const k = Math.max(...listKs(figures));
  return translate("evaluation_sentence", { share: formatShare(figures[`R@${k}`]), k });
}

function listKs(figures) {
  return Object.keys(figures).filter((name) => name.startsWith("R@")).map((name) => Number(name.slice(2)));
}

export function formatShare(share) {
  return `${(100 * share).toFixed(share === 1 ? 0 : 1)} %`;
}

/** `lines`: [name of the label, figures] each. */
export function makeTable(lines) {
  const ks = listKs(lines[0][1]);
  const head = make("tr", {}, make("td"), ...ks.map((k) => make("th", { scope: "col" }, translate("evaluation_first", { k }))));
  const line = (label, figures) =>
    make("tr", {}, make("th", { scope: "row" }, translate(label)), ...ks.map((k) => makeCell(figures, `R@${k}`)));
  return make("table", { className: "figures" }, head, ...lines.map(([label, figures]) => line(label, figures)));
}

function makeCell(figures, name) {
  const ends = figures.confidence[name];
  const title = ends ? translate("evaluation_between", { low: formatShare(ends[0]), high: formatShare(ends[1]) }) : "";
  return make("td", { title }, formatShare(figures[name]));
}

function describeMisses(misses) {
  if (!misses.length) return [];
  const items = misses.slice(0, SHOWN_MISSES).map(({ text, image, first, rank }) =>
    make("li", {}, makePicture(image.id), make("span", { dir: "auto" }, text, " ", make("small", { className: "muted" }, translate("evaluation_rank", { rank }))), makePicture(first.id)),
  );
  return [make("h3", {}, translate("evaluation_misses")), make("ul", { className: "misses" }, ...items)];
}

function makePicture(id) {
  return make("a", { href: makeHref({ show: id }), className: "to-picture", title: id }, make("img", { src: thumbnailUrl(id), alt: id, loading: "lazy" }));
}
