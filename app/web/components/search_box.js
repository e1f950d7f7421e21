// The search box: reports the words once typing pauses, but never during the composition of a Chinese word.
// The chip before the words shows the pictures of the search; a slider weighs them if there are words too.

import { thumbnailUrl } from "../api/client.js";
import { translate, translateElements } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { isMixed } from "../state/query.js";
import { parsePictureUrl } from "../state/url_state.js";
import { byId, make } from "./dom.js";

const PAUSE_MS = 60;
const MAX_CHIP_PICTURES = 3;

/** `onSettle()`: the user has finished a change. Returns a function that forgets words not yet reported. */
export function watchSearchBox({ onType, onSettle, onPicture, onRemovePictures, onWeigh }) {
  const box = byId("box");
  let timer = 0;
  let isComposing = false;
  const cancel = () => clearTimeout(timer);
  const report = () => {
    cancel();
    const picture = parsePictureUrl(box.value);
    if (picture) {
      box.value = "";
      onPicture(picture);
    } else onType(box.value);
  };
  const reportSoon = () => {
    cancel();
    if (!isComposing) timer = setTimeout(report, PAUSE_MS);
  };
  box.addEventListener("compositionstart", () => (isComposing = true));
  box.addEventListener("compositionend", () => {
    isComposing = false;
    reportSoon();
  });
  box.addEventListener("input", (event) => event.isComposing || reportSoon());
  box.addEventListener("change", onSettle);
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    report();
    onSettle();
  });
  byId("chip").querySelector("button").addEventListener("click", () => {
    onRemovePictures();
    box.focus();
  });
  const slider = byId("weight");
  slider.addEventListener("input", () => {
    showWeight(Number(slider.value));
    cancel();
    timer = setTimeout(() => onWeigh(Number(slider.value)), PAUSE_MS);
  });
  slider.addEventListener("change", onSettle);
  return cancel;
}

let shownWords = null; // as last written into the box; the page does not change what the user is typing
let shownPictures = "";

export function showQuery(query, typed) {
  const box = byId("box");
  if (query.q !== shownWords && box.value.trim() !== query.q) box.value = typed;
  shownWords = query.q;
  showWeightControl(query);
  showChip([...(query.file ? [query.file] : []), ...query.like]);
}

/** `pictures`: a dropped File, or ids. */
function showChip(pictures) {
  const names = pictures.map((one) => (one instanceof File ? `${one.name} ${one.size} ${one.lastModified}` : one));
  const key = [currentCollection(), ...names].join(" ");
  if (key === shownPictures) return;
  shownPictures = key;
  const list = byId("chip-pictures");
  for (const image of list.querySelectorAll("img")) {
    if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  }
  list.replaceChildren(...pictures.slice(0, MAX_CHIP_PICTURES).map(makeChipImage));
  if (pictures.length > MAX_CHIP_PICTURES) list.append(make("span", {}, `+${pictures.length - MAX_CHIP_PICTURES}`));
  byId("chip").hidden = !pictures.length;
  byId("box").dataset.placeholder = pictures.length ? "placeholder_refine" : "placeholder";
  translateElements(byId("search"));
}

/** A file that is no picture shows "!" in its place. */
function makeChipImage(picture) {
  const src = picture instanceof File ? URL.createObjectURL(picture) : thumbnailUrl(picture);
  const image = make("img", { alt: translate("searched_picture"), width: 32, height: 32, src });
  image.addEventListener("error", () => image.replaceWith(make("span", { className: "broken" })));
  return image;
}

function showWeightControl(query) {
  byId("weight-control").hidden = !isMixed(query);
  const slider = byId("weight");
  if (document.activeElement !== slider) slider.value = query.weight;
  showWeight(Number(slider.value));
}

function showWeight(value) {
  const percent = { picture: Math.round(value * 100), words: Math.round((1 - value) * 100) };
  byId("weight").ariaValueText = translate("weight_now", percent);
  byId("weight").title = byId("weight").ariaValueText;
}
