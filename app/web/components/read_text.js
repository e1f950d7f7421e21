// The text that was read in a picture: the user can select and copy it, and see on the picture where it is. The boxes
// of the lines are loaded when they are shown.

import { getEnrichments } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { copyText } from "./clipboard.js";
import { make, makeButton } from "./dom.js";
import { markWords } from "./marked_text.js";
import { toast } from "./toast.js";

/** A section; null where no text was read. `words`: those of the search; the lines with them are shown at once. */
export function makeReadText(image, words, stage) {
  stage.showLines([]);
  if (!image.ocr_text) return null;
  const toggle = makeButton("link", translate("show_lines"), { "aria-pressed": "false" });
  const copy = makeButton("link", translate("copy"), { ariaLabel: translate("copy_text") });
  const show = async (isOn) => {
    toggle.setAttribute("aria-pressed", isOn);
    try {
      const lines = isOn ? await loadLines(image) : [];
      if (toggle.isConnected && (toggle.ariaPressed === "true") === isOn) stage.showLines(lines, words);
    } catch (problem) {
      toggle.setAttribute("aria-pressed", "false");
      toast(describeError(problem));
    }
  };
  toggle.addEventListener("click", () => show(toggle.ariaPressed !== "true"));
  copy.addEventListener("click", () => copyText(image.ocr_text, "copied"));
  if (words.length) setTimeout(() => show(true)); // once the section is in the page
  const text = make("p", { className: "read-text", dir: "auto", tabIndex: 0 }, ...markWords(image.ocr_text, words));
  return make("section", {}, make("h3", {}, translate("read_text")), text, make("div", { className: "row" }, toggle, copy));
}

async function loadLines({ id }) {
  const { enrichments } = await getEnrichments(id);
  return enrichments.ocr?.result?.lines ?? [];
}
