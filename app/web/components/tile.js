// One picture in the grid and one text in the list: the picture's place, its words, its score, its box to choose it.
// A score is shown as a number and as a line, whose length is its share of the best one's.

import { hrefOf } from "../state/url_state.js";
import { make } from "./dom.js";
import { ratioOf } from "./grid_layout.js";
import { thumbnail } from "../api/client.js";
import { words } from "../i18n/i18n.js";

export function cell(hit, { state, best, chosen }) {
  const { image } = hit;
  const name = nameOf(image);
  const picture = make("img", { alt: name, loading: "lazy", decoding: "async" });
  const frame = make("span", { className: "frame" }, picture);
  const caption = make("span", { className: "caption", dir: "auto" }, image.caption || image.source || "");
  const line = make("span", { className: "line" }, caption, hit.score === undefined ? null : score(hit.score));
  const link = make("a", { className: "tile", href: hrefOf({ ...state, show: hit.id }) }, frame, line);
  link.dataset.id = hit.id;
  const pick = make("button", { type: "button", className: "pick", tabIndex: -1, ariaPressed: String(chosen) }, "✓");
  pick.ariaLabel = words("choose", { name });
  const item = make("li", { className: "cell" }, link, pick);
  item.classList.toggle("chosen", chosen);
  item.style.setProperty("--ratio", ratioOf(image).toFixed(4));
  measured(item, hit.score, best);
  picture.addEventListener("error", () => frame.classList.add("broken"), { once: true });
  if (image.status === "failed") frame.classList.add("broken");
  else picture.src = thumbnail(hit.id);
  return item;
}

/** What a picture is called: its caption, else the name of its file. */
export function nameOf({ caption, source }) {
  return caption || source || words("no_caption");
}

export function textLines(hits, best = hits[0]?.score) {
  return hits.map((hit) => {
    const href = hrefOf({ q: hit.text.text });
    const link = make("a", { href }, make("span", { className: "words", dir: "auto" }, hit.text.text));
    return measured(make("li", {}, link, score(hit.score)), hit.score, best);
  });
}

function score(value) {
  return make("span", { className: "score", title: words("score_title") }, value.toFixed(3));
}

function measured(element, value, best) {
  if (value === undefined) return element;
  element.style.setProperty("--share", Math.min(Math.max(0, value / Math.max(best, 1e-4)), 1).toFixed(3));
  return element;
}
