// The search box: tells of words once typing pauses, never in the middle of a composition (Chinese input).
// The chip before the words shows the pictures that the search goes by; with words too, a slider weighs them.

import { pictureOf } from "../state/url_state.js";
import { byId, make } from "./dom.js";
import { here } from "../state/collection_context.js";
import { isMixed, taken } from "../state/query.js";
import { thumbnail } from "../api/client.js";
import { listed, words as say } from "../i18n/i18n.js";

const PAUSE = 60;
const SHOWN = 3; // pictures in the chip

export function watchBox({ typed, settled, pictured, unpictured, weighed }) {
  const box = byId("box");
  let timer = 0;
  let composing = false;
  const now = () => {
    clearTimeout(timer);
    const picture = pictureOf(box.value);
    if (picture) {
      box.value = "";
      pictured(picture);
    } else typed(box.value);
  };
  const soon = () => {
    clearTimeout(timer);
    if (!composing) timer = setTimeout(now, PAUSE);
  };
  box.addEventListener("compositionstart", () => (composing = true));
  box.addEventListener("compositionend", () => {
    composing = false;
    soon();
  });
  box.addEventListener("input", (event) => event.isComposing || soon());
  box.addEventListener("change", settled);
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    now();
    settled();
  });
  byId("chip").querySelector("button").addEventListener("click", () => {
    unpictured();
    box.focus();
  });
  const slider = byId("weight");
  slider.addEventListener("input", () => {
    showWeight(Number(slider.value));
    clearTimeout(timer);
    timer = setTimeout(() => weighed(Number(slider.value)), PAUSE);
  });
  slider.addEventListener("change", settled);
  return { cancel: () => clearTimeout(timer) };
}

let words = null; // as last written into the box; what is being typed stays untouched
let pictures = "";

export function showQuery(query, raw) {
  const box = byId("box");
  if (query.q !== words && box.value.trim() !== query.q) box.value = raw;
  words = query.q;
  showMix(query);
  const all = [...(query.file ? [query.file] : []), ...query.like];
  const said = all.map((one) => (one instanceof File ? `${one.name} ${one.size} ${one.lastModified}` : one));
  const key = [here(), ...said].join(" ");
  if (key === pictures) return;
  pictures = key;
  const chip = byId("chip");
  const place = byId("chip-pictures");
  for (const image of place.querySelectorAll("img")) {
    if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  }
  place.replaceChildren(...all.slice(0, SHOWN).map(small));
  if (all.length > SHOWN) place.append(make("span", {}, `+${all.length - SHOWN}`));
  chip.hidden = !all.length;
}

function small(one) {
  const src = one instanceof File ? URL.createObjectURL(one) : thumbnail(one);
  return make("img", { alt: say("searched_picture"), width: 32, height: 32, src });
}

function showMix(query) {
  byId("mix").hidden = !isMixed(query);
  const slider = byId("weight");
  if (document.activeElement !== slider) slider.value = query.weight;
  showWeight(Number(slider.value));
  const { words: plain, without } = taken(query.q);
  byId("minus").hidden = !without.length;
  if (without.length) {
    const list = listed(without.map((word) => `“${word}”`));
    byId("minus").textContent = plain ? say("without", { words: plain, list }) : say("only_without", { list });
  }
}

function showWeight(value) {
  const shares = { picture: Math.round(value * 100), words: Math.round((1 - value) * 100) };
  byId("weight").ariaValueText = say("weight_now", shares);
  byId("weight-now").textContent = `${shares.words} : ${shares.picture}`;
}
