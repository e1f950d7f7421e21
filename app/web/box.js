// The search box: tells of words once typing pauses, never in the middle of a composition (Chinese input).
// The chip before the words shows the picture that the search goes by.

import { byId } from "./element.js";
import { thumbnail } from "./server.js";

const PAUSE = 120;

export function watchBox({ typed, settled, unpictured }) {
  const box = byId("box");
  let timer = 0;
  let composing = false;
  const now = () => {
    clearTimeout(timer);
    typed(box.value);
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
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest?.("input:not([type=radio]), textarea, dialog");
    if (event.key !== "/" || writing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
  return { cancel: () => clearTimeout(timer) };
}

let words = null; // as last written into the box; what is being typed stays untouched
let picture = null;

export function showQuery({ q, like, file }, raw) {
  const box = byId("box");
  if (q !== words && box.value.trim() !== q) box.value = raw;
  words = q;
  if ((file ?? like) === picture) return;
  picture = file ?? like;
  const chip = byId("chip");
  const image = chip.querySelector("img");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  chip.hidden = !picture;
  if (file) image.src = URL.createObjectURL(file);
  else if (like) image.src = thumbnail(like);
  else image.removeAttribute("src");
}
