// What the page shows instead of results: how to start, what the user can search for, and how to add texts.
// The last answer and the number of texts decide which of these it is.

import { getStats, startDemo } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { showProblem } from "../components/banner.js";
import { byId, make, makeButton } from "../components/dom.js";
import { describeModel } from "../components/notices.js";
import { formatDays, translate } from "../i18n/i18n.js";
import { currentCollection, homeCollection } from "../state/collection_context.js";
import { showMessage } from "./results.js";
import { makeTextForm, makeTextList } from "./texts.js";
import { watchJob } from "./upload.js";

/** `searchAgain()` repeats the search, `refresh(isComplete)` also forgets the results of other searches. */
export function showEmptyState(answer, target, { searchAgain, refresh }) {
  if (answer?.hits.length) showMessage(translate("no_hits_title"), translate("only_itself"));
  else if (answer && target === "texts") showNoTexts(searchAgain);
  else if (!hasScope("write")) showMessage(translate("nothing_read_only"));
  else showWelcome(searchAgain, refresh);
}

/** The collection is empty: one's own pictures first, then the demo gallery, but not in a collection made for something. */
function showWelcome(searchAgain, refresh) {
  const files = makeButton("button", translate("add_files"));
  const folder = makeButton("button plain folder", translate("add_folder"));
  const photo = makeButton("button plain touch-only", translate("add_photo"));
  files.addEventListener("click", () => byId("files").click());
  photo.addEventListener("click", () => byId("photo").click());
  folder.addEventListener("click", () => byId("folder").click());
  const message = showMessage(
    translate("nothing_title"),
    make("p", { className: "mouse-only" }, translate("nothing")),
    make("div", { className: "buttons" }, files, photo, folder),
    make("small", {}, translate("nothing_command"), " ", make("code", {}, describeCommand())),
  );
  message.classList.add("welcome");
  const notice = describeModel();
  if (notice) message.after(make("p", { className: "notice" }, make("span", {}, ...notice)));
  if (currentCollection() !== homeCollection()) return;
  const demo = makeButton("link", translate("demo"));
  demo.addEventListener("click", () => loadDemo(demo, searchAgain, refresh));
  message.after(make("p", { className: "offer" }, demo, make("small", {}, translate("demo_note"))));
}

/** The command that loads a folder into this collection of this server. */
function describeCommand() {
  const parts = ["sightline ingest FOLDER"];
  if (currentCollection() !== "default") parts.push(`--collection ${currentCollection()}`);
  const server = new URL(".", document.baseURI).href.replace(/\/$/, "");
  if (server !== "http://localhost:8000") parts.push(`--server ${server}`);
  return parts.join(" ");
}

/** No picture passes the filter. */
export function showNoFilterHits(onClear) {
  const button = makeButton("button plain", translate("filters_clear"));
  button.addEventListener("click", onClear);
  showMessage(translate("no_hits_filter"), make("p", {}, button));
}

/** No picture was taken at the time that the words name. */
export function showNoHitsOfTime({ text, from, to }, onEnd) {
  const button = makeButton("button plain", translate("taken_end", { text }));
  button.addEventListener("click", onEnd);
  showMessage(translate("no_hits_of_time", { days: formatDays(from, to) }), make("p", {}, button));
}

/** The user has chosen texts as the target, and has not searched yet. */
export async function showTextsIntro(searchAgain) {
  const message = showMessage(translate("ask_texts_title"));
  const n = (await getStats().catch(() => null))?.texts;
  if (!message.isConnected) return;
  if (n === 0) return showNoTexts(searchAgain);
  const form = make("details", {}, make("summary", {}, translate("add_texts")), makeTextForm(searchAgain));
  showMessage(translate("ask_texts_title"), translate("ask_texts"), hasScope("write") ? form : null).after(makeTextList());
}

function showNoTexts(searchAgain) {
  showMessage(translate("no_texts_title"), translate("no_texts"), makeTextForm(searchAgain));
}

async function loadDemo(button, searchAgain, refresh) {
  button.disabled = true;
  try {
    watchJob(await startDemo(), translate("demo_title"), refresh);
  } catch (problem) {
    button.disabled = false;
    showProblem(problem, searchAgain, "not_done");
  }
}
