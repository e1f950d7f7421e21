// Copies a text for the user, also where the browser has no clipboard for the page: over plain HTTP from another machine.
// A message says that it is done.

import { translate } from "../i18n/i18n.js";
import { make } from "./dom.js";
import { toast } from "./toast.js";

/** `message`: the key of the text that says what was copied. */
export async function copyText(text, message) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copySelected(text)) return;
  }
  toast(translate(message));
}

function copySelected(text) {
  const element = make("span", {}, text);
  (document.querySelector("dialog[open]") ?? document.body).append(element); // an open dialog disables all around it
  getSelection().selectAllChildren(element);
  const isCopied = document.execCommand("copy");
  element.remove();
  return isCopied;
}
