// One short message at the foot of the page, with at most one button. It stays while the pointer or the focus is on it.
// While a picture is open the message moves into that dialog, because an open dialog covers and disables the rest.

import { translate } from "../i18n/i18n.js";
import { byId, make, makeButton } from "./dom.js";

const DURATION_MS = 8000;
let timer = 0;
let onTimeout = null;
let remaining = 0; // ms, while the timer is stopped
let startedAt = 0;

/** Show a message. `onAction` runs if the user presses its button, otherwise `onEnd` when the message ends. */
export function toast(text, { action = null, onAction = null, onEnd = null } = {}) {
  endToast();
  onTimeout = onEnd;
  remaining = DURATION_MS;
  const button = action && makeButton("link", translate(action));
  button?.addEventListener("click", () => {
    onTimeout = null;
    endToast();
    onAction();
  });
  byId("toast").replaceChildren(make("span", {}, text), ...(button ? [button] : []));
  placeToast();
  byId("toast").hidden = false;
  startTimer();
}

export function endToast() {
  clearTimeout(timer);
  timer = 0;
  byId("toast").hidden = true;
  const callback = onTimeout;
  onTimeout = null;
  callback?.();
}

export function pressToastButton() {
  byId("toast").querySelector("button")?.click();
}

/** Move the message to where the user can reach it. */
export function placeToast() {
  const element = byId("toast");
  const detail = byId("detail");
  if (detail.open && element.parentElement !== detail) detail.append(element);
  else if (!detail.open && element.parentElement === detail) byId("selection").before(element);
}

export function watchToast() {
  const element = byId("toast");
  byId("detail").addEventListener("close", placeToast);
  for (const type of ["pointerenter", "focusin"]) element.addEventListener(type, stopTimer);
  for (const type of ["pointerleave", "focusout"]) element.addEventListener(type, () => setTimeout(startTimer));
}

function stopTimer() {
  if (!timer) return;
  clearTimeout(timer);
  timer = 0;
  remaining -= Date.now() - startedAt;
}

function startTimer() {
  const element = byId("toast");
  if (element.hidden || element.matches(":hover") || element.contains(document.activeElement)) return;
  clearTimeout(timer);
  startedAt = Date.now();
  timer = setTimeout(endToast, Math.max(remaining, 1000));
}
