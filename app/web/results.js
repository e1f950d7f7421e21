// Draws results: a grid of pictures whose places are known before they arrive, or a list of texts.
// Also the quiet messages that stand where results would be.

import { hrefOf } from "./address.js";
import { byId, make } from "./element.js";
import { thumbnail } from "./server.js";
import { words } from "./words.js";

const NARROWEST = 0.7; // width to height of a place; what is beyond is cropped at its edges
const WIDEST = 2.1;

export function drawHits(hits, state, { fresh }) {
  const place = byId("results");
  const kind = state.target === "images" ? "grid" : "list";
  let box = place.querySelector(`.${kind}`);
  if (fresh || !box) {
    box = make(kind === "grid" ? "div" : "ol", { className: kind });
    box.dataset.best = hits[0]?.score ?? 1; // later pages are measured by the first
    place.replaceChildren(box);
  }
  box.append(...(kind === "grid" ? hits.map((hit) => tile(hit, state)) : textLines(hits, box.dataset.best)));
}

export function drawMessage(title, ...lines) {
  const message = make("div", { className: "message" }, make("h2", {}, title), ...lines.map((line) => make("p", {}, line)));
  byId("results").replaceChildren(message);
}

export function textLines(hits, best = hits[0]?.score) {
  return hits.map((hit) => {
    const href = hrefOf({ q: hit.text.text, target: "images" });
    const link = make("a", { href }, make("span", { className: "words", dir: "auto" }, hit.text.text));
    const line = make("li", {}, link, score(hit.score));
    line.style.setProperty("--share", Math.min(Math.max(0, hit.score / Math.max(best, 1e-4)), 1).toFixed(3));
    return line;
  });
}

export function score(value) {
  return make("span", { className: "score", title: words("score_title") }, value.toFixed(3));
}

export function ratioOf(image) {
  const ratio = image.width && image.height ? image.width / image.height : 1;
  return Math.min(Math.max(ratio, NARROWEST), WIDEST);
}

function tile(hit, state) {
  const { image } = hit;
  const picture = make("img", {
    alt: image.caption || words("no_caption"),
    loading: "lazy",
    decoding: "async",
    width: image.width ?? 1,
    height: image.height ?? 1,
  });
  const frame = make("span", { className: "frame" }, picture);
  const caption = make("span", { className: "caption", dir: "auto" }, image.caption || image.source || "");
  const link = make(
    "a",
    { className: "tile", href: hrefOf({ ...state, show: hit.id }) },
    frame,
    make("span", { className: "line" }, caption, hit.score === undefined ? null : score(hit.score)),
  );
  link.dataset.id = hit.id;
  link.style.setProperty("--ratio", ratioOf(image).toFixed(4));
  picture.addEventListener("error", () => frame.classList.add("broken"), { once: true });
  if (image.status === "failed") frame.classList.add("broken");
  else picture.src = thumbnail(hit.id);
  return link;
}
