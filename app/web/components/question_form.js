// A question about a picture with the answers that there may be. The server says how probable each is, and what has
// answered.

import { askAboutImage } from "../api/client.js";
import { translate } from "../i18n/i18n.js";
import { make } from "./dom.js";
import { makeForm, makeLabel } from "./form.js";

export function makeQuestionForm(image) {
  const question = make("input", { type: "text", dir: "auto", required: true, maxLength: 1000 });
  const answers = make("textarea", { rows: 3, dir: "auto", required: true });
  const result = make("div", { className: "answers", "aria-live": "polite" });
  const fields = [makeLabel(translate("question"), question), makeLabel(translate("answers"), answers)];
  const form = makeForm(fields, { label: translate("question_ask"), submit });
  async function submit() {
    result.replaceChildren();
    const lines = answers.value.split("\n").map((line) => line.trim());
    const found = await askAboutImage(image.id, question.value, [...new Set(lines.filter(Boolean))], image.collection);
    const items = found.answers.map((one) => make("li", { dir: "auto" }, `${Math.round(one.probability * 100)} % `, one.answer));
    const notes = [translate({ encoder: "answered_encoder", captioner: "answered_captioner" }[found.by], { model: found.model }), ...found.warnings.map(({ detail }) => detail)];
    result.append(make("ol", {}, ...items), ...notes.map((note) => make("p", { className: "muted", dir: "auto" }, note)));
  }
  return make("details", { className: "question" }, make("summary", {}, translate("question_title")), form, result);
}
