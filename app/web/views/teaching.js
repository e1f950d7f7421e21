// What the open collection has learned from its captions: taught by a job of the server, shown in the dialog of the
// collections with what it brings, and used or not used by a click.

import { followJob, getCollection, isUnfinished, listHeads, listJobs, startTeaching, useHead } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { byId, make, makeButton } from "../components/dom.js";
import { describeError, translate } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { formatShare, makeTable } from "./evaluation.js";

let stop = () => {};
let onChange = () => {};

/** `onChange()` is called when searches in the collection find something else than before. */
export function watchTeaching(listener) {
  onChange = listener;
  byId("teaching").addEventListener("toggle", () => (byId("teaching").open ? load() : stop()));
  byId("collections").addEventListener("close", () => (byId("teaching").open = false));
}

/** Show the head in use, else the newest; a job that runs is followed, one that was refused is shown. */
async function load() {
  stop();
  if (!byId("teaching-body").childElementCount) show(makeNote());
  try {
    const [{ jobs }, { heads }, collection] = await Promise.all([listJobs(), listHeads(), getCollection(currentCollection())]);
    const job = jobs.find(({ kind, state }) => kind === "teach" && state !== "cancelled");
    if (job && isUnfinished(job)) return showProgress(job);
    const head = heads.find((one) => one.is_used) ?? heads[0];
    if (job?.error && !head?.is_used) return showRefusal(job);
    show(...(head ? describeHead(head, collection) : [makeNote()]), makeStart(head ? "teaching_again" : "teaching_start"));
  } catch (problem) {
    showProblem(problem);
  }
}

function show(...nodes) {
  byId("teaching-body").replaceChildren(...nodes.filter(Boolean));
}

function makeNote() {
  return make("p", { className: "muted" }, translate("teaching_note"));
}

function makeAlert(problem) {
  return make("p", { className: "error", role: "alert" }, describeError(problem));
}

function showProblem(problem) {
  show(makeNote(), makeAlert(problem), makeStart("teaching_start"));
}

function showRefusal({ error, result }) {
  const table = result?.text_to_image && makeFigures(result);
  show(makeNote(), makeAlert(error), table, makeStart("teaching_start"));
}

function showProgress(job) {
  const bar = make("progress", { max: job.total || 1, value: job.done, ariaLabel: translate("teaching_runs") });
  show(make("p", { className: "muted", role: "status" }, translate("teaching_runs")), bar);
  stop();
  stop = followJob(job.id, (now) => {
    if (isUnfinished(now)) return Object.assign(bar, { max: now.total || 1, value: now.done });
    stop();
    load();
  });
}

function describeHead(head, collection) {
  const { figures, is_used: isUsed } = head;
  const isActive = head.space.fingerprint === collection.space?.fingerprint;
  const state = translate(!isActive ? "teaching_inactive" : isUsed ? "teaching_on" : "teaching_off");
  const { before, after } = figures.text_to_image;
  const [low, high] = figures.confidence.map(formatShare);
  const found = { n: before.n, before: formatShare(before["R@10"]), after: formatShare(after["R@10"]), low, high };
  const gain = make("p", {}, translate("teaching_gain", found));
  return [make("p", { role: "status" }, state), gain, makeFigures(figures), makeSwitch(head, isActive)];
}

function makeFigures({ text_to_image: texts, image_to_text: pictures }) {
  return makeTable([
    ["teaching_texts_before", texts.before],
    ["teaching_texts_after", texts.after],
    ["teaching_pictures_before", pictures.before],
    ["teaching_pictures_after", pictures.after],
  ]);
}

function makeSwitch({ id, is_used: isUsed }, isActive) {
  if (!hasScope("admin") || !(isUsed || isActive)) return null;
  return makeAction(isUsed ? "teaching_take_off" : "teaching_take_on", async () => {
    await useHead(isUsed ? null : id);
    onChange();
  });
}

function makeStart(label) {
  return hasScope("admin") ? makeAction(label, startTeaching) : null;
}

/** A button that does something, and shows what is then. */
function makeAction(label, act) {
  const button = makeButton("button plain", translate(label));
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await act();
      await load();
      byId("teaching").querySelector("summary").focus();
    } catch (problem) {
      showProblem(problem);
    }
  });
  return make("div", { className: "buttons" }, button);
}
