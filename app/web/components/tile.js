// A picture in the grid with its name and its check mark, and a label in a list of labels with its match.
// A name is the caption, or the file's base name. In a second line is what was found of the text in the picture, else the folder
// of the file. The tooltip has the whole path.

import { thumbnailUrl } from "../api/client.js";
import { currentLanguage, translate, translateCount } from "../i18n/i18n.js";
import { makeHref } from "../state/url_state.js";
import { make, makeButton } from "./dom.js";
import { clampRatio, isCropped } from "./grid_layout.js";
import { markSnippet } from "./marked_text.js";

const LARGE = 1024; // px of the longer side

export function makeTile(hit, { state, isSelected }) {
  const { image } = hit;
  const name = getName(image);
  const picture = make("img", { alt: name, loading: "lazy", decoding: "async" });
  const { length: more } = hit.duplicates ?? [];
  const frame = make("span", { className: "frame" }, picture, more ? make("span", { className: "more-similar" }, `+${more}`) : "");
  if (image.video_id) frame.append(make("span", { className: "moment" }, `▶ ${describeMoments(hit)}`));
  const caption = make("span", { className: "caption", dir: "auto" }, hasName(image) ? name : "");
  const second = makeSecondLine(hit);
  const link = make("a", { className: "tile", href: makeHref({ ...state, show: hit.id }) }, frame, caption, second);
  link.title = describeHit(hit);
  link.dataset.id = hit.id;
  const pick = makeButton("pick", "✓", { tabIndex: -1, ariaPressed: String(isSelected) });
  pick.ariaLabel = translate("select_one", { name });
  const item = make("li", { className: "cell" }, link, pick);
  item.classList.toggle("selected", isSelected);
  item.style.setProperty("--ratio", clampRatio(image).toFixed(4));
  if (image.width) picture.style.setProperty("--width", image.width); // the style enlarges small pictures twice at most
  if (image.height) picture.style.setProperty("--height", image.height);
  picture.addEventListener("error", () => frame.classList.add("broken"), { once: true });
  if (image.format !== "jpeg") picture.addEventListener("load", () => frame.classList.add("see-through"), { once: true });
  if (image.status === "failed") frame.classList.add("broken");
  else picture.src = thumbnailUrl(hit.id, isCropped(image) ? LARGE : null); // its shorter side would be blurred
  return item;
}

/** The caption, in the language of the page if the metadata has it, else the file's base name. */
export function getName({ caption, source, metadata }) {
  const translated = metadata?.[`caption_${currentLanguage()}`];
  if (typeof translated === "string" && translated) return translated;
  return caption || source?.split("/").at(-1) || translate("no_caption");
}

/** Where a frame is in its video: 0:12, 1:02:03. */
export function formatMoment(ms) {
  const parts = [Math.floor(ms / 3_600_000), Math.floor(ms / 60_000) % 60, Math.floor(ms / 1000) % 60];
  if (!parts[0]) parts.shift();
  return parts.map((part, n) => (n ? String(part).padStart(2, "0") : part)).join(":");
}

function describeMoments({ image, moments = 1 }) {
  return moments > 1 ? translateCount("moments", moments) : formatMoment(image.t_ms);
}

/** Whether the picture has a caption or came as a file. */
export function hasName({ caption, source }) {
  return Boolean(caption || source);
}

/** Whether there is something to say below the name of a hit. */
export function hasSecondLine({ image, highlights }) {
  return Boolean(highlights?.ocr || getFolder(image));
}

function makeSecondLine({ image, highlights }) {
  const { ocr: words } = highlights ?? {};
  if (words) return make("span", { className: "found", dir: "auto" }, ...markSnippet(image.ocr_text ?? "", words));
  return make("span", { className: "folder", dir: "auto" }, getFolder(image));
}

/** The folder of a picture that goes by its file name, else "". */
function getFolder({ caption, source }) {
  return caption || !source ? "" : source.split("/").slice(0, -1).join("/");
}

function describeHit({ score, image, duplicates = [], highlights }) {
  const similar = duplicates.length ? translateCount("more_similar", duplicates.length) : null;
  const match = score === undefined ? null : translate("score", { score: score.toFixed(3) });
  const moment = image.video_id ? translate("at_moment", { time: formatMoment(image.t_ms) }) : null;
  const read = highlights?.ocr ? `${translate("found_ocr")}: ${highlights.ocr.join(", ")}` : null;
  return [image.caption && getName(image), image.source, read, moment, match, similar].filter(Boolean).join("\n");
}

export function makeTextLines(hits, best = hits[0]?.score) {
  return hits.map((hit) => {
    const score = make("span", { className: "score", title: translate("score_title") }, hit.score.toFixed(3));
    const line = make("li", {}, makeTextLink(hit.text.text), score);
    line.style.setProperty("--share", Math.min(Math.max(0, hit.score / Math.max(best, 1e-4)), 1).toFixed(3));
    return line;
  });
}

/** A text, as a link that searches for pictures with it. */
export function makeTextLink(text) {
  return make("a", { href: makeHref({ q: text }) }, make("span", { className: "text", dir: "auto" }, text));
}
