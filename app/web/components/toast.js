// One short message at the foot of the page, with at most one thing to do about it.
// It stays while the pointer or the focus is on it. While a picture is large it stands in that dialog: what lies outside
// of an open dialog can neither be seen well nor be pressed.

import { byId, make } from "./dom.js";
import { words } from "../i18n/i18n.js";

const SECONDS = 8;
let timer = 0;
let ending = null; // what happens when the time is over
let left = 0;
let since = 0;

export function toast(text, { action = null, done = null, undo = null } = {}) {
  finish();
  ending = done;
  left = SECONDS * 1000;
  const place = byId("toast");
  const button = action && make("button", { type: "button", className: "link" }, words(action));
  button?.addEventListener("click", () => {
    ending = null;
    finish();
    undo();
  });
  place.replaceChildren(make("span", {}, text), ...(button ? [button] : []));
  hostToast();
  place.hidden = false;
  run();
}

/** End the message now, as if its time were over. */
export function finish() {
  clearTimeout(timer);
  timer = 0;
  byId("toast").hidden = true;
  const now = ending;
  ending = null;
  now?.();
}

export function takeBack() {
  byId("toast").querySelector("button")?.click();
}

/** Put the message where it can be reached. */
export function hostToast() {
  const place = byId("toast");
  const view = byId("view");
  if (view.open && place.parentElement !== view) view.append(place);
  else if (!view.open && place.parentElement === view) byId("chosen").before(place);
}

export function watchToast() {
  const place = byId("toast");
  byId("view").addEventListener("close", hostToast);
  for (const held of ["pointerenter", "focusin"]) place.addEventListener(held, hold);
  for (const free of ["pointerleave", "focusout"]) place.addEventListener(free, () => setTimeout(run));
}

function hold() {
  if (!timer) return;
  clearTimeout(timer);
  timer = 0;
  left -= Date.now() - since;
}

function run() {
  const place = byId("toast");
  if (place.hidden || place.matches(":hover") || place.contains(document.activeElement)) return;
  clearTimeout(timer);
  since = Date.now();
  timer = setTimeout(finish, Math.max(left, 1000));
}
