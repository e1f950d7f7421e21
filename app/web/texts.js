// The form that adds texts, one a line: what a picture can be named by, and what the search for texts finds.
// What is being written outlives a new drawing of the form.

import { make } from "./element.js";
import { addTexts } from "./server.js";
import { toast } from "./toast.js";
import { counted, words } from "./words.js";

let draft = "";

export function textForm(added) {
  const field = make("textarea", { rows: 4, value: draft, dir: "auto", required: true });
  const said = make("p", { className: "bad", role: "alert", hidden: true });
  const save = make("button", { type: "submit", className: "button" }, words("add_texts"));
  const more = make("p", { className: "soft" }, words("texts_docs"), " ", make("a", { href: "docs", className: "link" }, words("docs")));
  const form = make(
    "form",
    { className: "texts" },
    make("label", {}, make("span", {}, words("texts_field")), field),
    said,
    make("div", { className: "acts" }, save, more),
  );
  field.addEventListener("input", () => (draft = field.value));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = [...new Set(draft.split("\n").map((line) => line.trim()))].filter(Boolean);
    if (!lines.length) return;
    save.disabled = true;
    try {
      await addTexts(lines);
      draft = "";
      toast(counted("texts_added", lines.length));
      added();
    } catch (problem) {
      save.disabled = false;
      said.textContent = problem.detail || words("away_short");
      said.hidden = false;
    }
  });
  return form;
}
