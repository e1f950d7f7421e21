// What stands where there are no results: how to begin, what can be asked, and how texts are added while there are none.
// Which of these it is, the last answer and the number of texts say.

import { make } from "../components/dom.js";
import { tellProblem } from "../components/banner.js";
import { drawMessage } from "./results.js";
import { addDemo, countTexts } from "../api/client.js";
import { may } from "../api/session.js";
import { textForm, textList } from "./texts.js";
import { watchJob } from "./upload.js";
import { words } from "../i18n/i18n.js";

/** `again` repeats the search, `refresh` also drops what is kept of others. */
export function drawNothing(answer, target, { again, refresh }) {
  if (answer?.hits.length) drawMessage(words("no_hits_title"), words("only_itself"));
  else if (answer && target === "texts") drawNoTexts(again);
  else {
    const button = make("button", { type: "button", className: "button" }, words("demo"));
    button.addEventListener("click", () => loadDemo(button, again, refresh));
    const [title, text] = answer ? ["no_hits_title", "no_hits_images"] : ["nothing_title", "nothing"];
    const offer = make("p", { className: "offer" }, button, make("small", {}, words("demo_note")));
    drawMessage(words(title), words(text), offer, words("nothing_command"));
  }
}

/** Texts are aimed at, and nothing is asked yet. */
export async function inviteTexts(again) {
  const first = drawMessage(words("ask_texts_title"));
  const n = await countTexts().catch(() => null);
  if (!first.isConnected) return;
  if (n === 0) return drawNoTexts(again);
  const more = make("details", {}, make("summary", {}, words("add_texts")), textForm(again));
  drawMessage(words("ask_texts_title"), words("ask_texts"), may("write") ? more : null).after(textList());
}

function drawNoTexts(again) {
  drawMessage(words("no_texts_title"), words("no_texts"), textForm(again));
}

async function loadDemo(button, again, refresh) {
  button.disabled = true;
  try {
    watchJob(await addDemo(), words("demo_title"), refresh);
  } catch (problem) {
    button.disabled = false;
    tellProblem(problem, again, "not_done");
  }
}
