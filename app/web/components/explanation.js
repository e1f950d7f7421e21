// Why a picture is a hit: the server draws which part of it met the words, and says which of the words counted.
// On a hit while the key W is held; in the detail, with the words, until it is ended.

import { explainImage, explanationUrl } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { parseQuery } from "../state/query.js";
import { make } from "./dom.js";
import { toast } from "./toast.js";

const VERDICTS = { good: "why_good", weak: "why_weak", none: "why_none" };
const LEAST = 0.01; // of the shares of words that are listed
const TILE = 512; // px of the longer side
const LARGE = 1024;
let held = null; // {picture, src}: a hit that shows its heat map

/** Whether there are words that a picture can meet. */
export function canExplain({ q, target }) {
  return target === "images" && Boolean(parseQuery(q).words);
}

/** Show the heat map of a hit in its tile until `releaseExplanation`. */
export async function holdExplanation(tile, query) {
  releaseExplanation();
  const picture = tile.querySelector("img");
  const mine = (held = { picture, src: picture.getAttribute("src") });
  tile.classList.add("explaining");
  mine.tile = tile;
  try {
    const { verdict } = await explainImage(tile.dataset.id, query);
    if (held !== mine) return;
    if (verdict.match === "none") toast(describeVerdict(verdict, query));
    else picture.src = explanationUrl(tile.dataset.id, query, TILE);
  } catch (problem) {
    if (held === mine) toast(describeError(problem));
  }
  tile.classList.remove("explaining");
}

export function releaseExplanation() {
  if (!held) return;
  held.tile.classList.remove("explaining");
  if (held.picture.getAttribute("src") !== held.src) held.picture.src = held.src;
  held = null;
}

/** Fill a section with the explanation of a picture, whose heat map the stage shows. */
export async function showExplanation(section, id, query, stage) {
  section.ariaBusy = "true";
  section.replaceChildren(make("p", { className: "muted" }, translate("why_waiting")));
  section.hidden = false;
  try {
    const found = await explainImage(id, query);
    if (section.hidden || !section.isConnected) return;
    const isKnown = found.verdict.match !== "none";
    if (isKnown) stage.showHeat(explanationUrl(id, query, LARGE));
    const place = isKnown ? make("span", { className: "visually-hidden" }, ` ${describePlace(found)}`) : null;
    section.replaceChildren(...[make("p", {}, describeVerdict(found.verdict, query), place), makeWords(found.words)].filter(Boolean));
  } catch (problem) {
    section.replaceChildren(make("p", { className: "error" }, describeError(problem)));
  } finally {
    section.ariaBusy = "false";
  }
}

function describeVerdict({ match }, { q }) {
  return translate(VERDICTS[match], { words: parseQuery(q).words });
}

/** Where the strongest cell is, for those who do not see the picture. */
function describePlace({ grid, area }) {
  const cells = grid.flatMap((row, y) => row.map((weight, x) => ({ weight, x: (x + 0.5) / row.length, y: (y + 0.5) / grid.length })));
  const best = cells.reduce((one, other) => (other.weight > one.weight ? other : one));
  const percent = (start, length, share) => Math.round(100 * Math.min(1, Math.max(0, start + length * share)));
  return translate("why_place", { x: percent(area.left, area.width, best.x), y: percent(area.top, area.height, best.y) });
}

/** The words that counted, with their shares of what all together add; none for a query of one word. */
function makeWords(words) {
  const known = words.filter(({ weight }) => weight !== null);
  const sum = known.reduce((total, { weight }) => total + Math.max(0, weight), 0);
  if (known.length < 2 || !sum) return null;
  const counted = known.map(({ text, weight }) => ({ text, share: Math.max(0, weight) / sum })).filter(({ share }) => share >= LEAST);
  const lines = counted.map(({ text, share }) => {
    const line = make("li", {}, make("span", { dir: "auto" }, text), make("span", { className: "muted" }, `${Math.round(100 * share)} %`));
    line.style.setProperty("--share", share.toFixed(3));
    return line;
  });
  return make("ul", { className: "list why-words", ariaLabel: translate("why_words") }, ...lines);
}
