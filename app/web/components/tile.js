// A picture in the grid, with its caption, its score and its check mark, and a text in a list of texts.
// A score appears as a number and as a line, whose length is the score as a share of the best score.

import { thumbnailUrl } from "../api/client.js";
import { translate } from "../i18n/i18n.js";
import { makeHref } from "../state/url_state.js";
import { make, makeButton } from "./dom.js";
import { clampRatio } from "./grid_layout.js";

export function makeTile(hit, { state, best, isSelected }) {
  const { image } = hit;
  const name = getName(image);
  const picture = make("img", { alt: name, loading: "lazy", decoding: "async" });
  const frame = make("span", { className: "frame" }, picture);
  const caption = make("span", { className: "caption", dir: "auto" }, image.caption || image.source || "");
  const line = make("span", { className: "line" }, caption, hit.score === undefined ? null : makeScore(hit.score));
  const link = make("a", { className: "tile", href: makeHref({ ...state, show: hit.id }) }, frame, line);
  link.dataset.id = hit.id;
  const pick = makeButton("pick", "✓", { tabIndex: -1, ariaPressed: String(isSelected) });
  pick.ariaLabel = translate("select_one", { name });
  const item = make("li", { className: "cell" }, link, pick);
  item.classList.toggle("selected", isSelected);
  item.style.setProperty("--ratio", clampRatio(image).toFixed(4));
  showShare(item, hit.score, best);
  picture.addEventListener("error", () => frame.classList.add("broken"), { once: true });
  if (image.status === "failed") frame.classList.add("broken");
  else picture.src = thumbnailUrl(hit.id);
  return item;
}

export function getName({ caption, source }) {
  return caption || source || translate("no_caption");
}

export function makeTextLines(hits, best = hits[0]?.score) {
  return hits.map((hit) => {
    const line = make("li", {}, makeTextLink(hit.text.text), makeScore(hit.score));
    showShare(line, hit.score, best);
    return line;
  });
}

/** A text, as a link that searches for pictures with it. */
export function makeTextLink(text) {
  return make("a", { href: makeHref({ q: text }) }, make("span", { className: "text", dir: "auto" }, text));
}

function makeScore(value) {
  return make("span", { className: "score", title: translate("score_title") }, value.toFixed(3));
}

function showShare(element, score, best) {
  if (score === undefined) return;
  element.style.setProperty("--share", Math.min(Math.max(0, score / Math.max(best, 1e-4)), 1).toFixed(3));
}
