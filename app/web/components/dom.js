// Builds elements from properties and text nodes, and opens and closes dialogs. The page never parses text as markup,
// so a name, a caption or a message of the server cannot become an element.

import { translate } from "../i18n/i18n.js";

export function byId(id) {
  return document.getElementById(id);
}

/** Create an element; the children are nodes, strings, or null to leave one out. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function makeButton(className, text, properties = {}) {
  return make("button", { type: "button", className, ...properties }, text);
}

/** End a list with a button that loads more of it; `load` appends the next entries. Gives the item of the button. */
export function appendMoreButton(list, load) {
  const button = makeButton("quiet", translate("show_more"));
  const item = make("li", {}, button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    await load();
    item.remove();
  });
  list.append(item);
  return item;
}

/** An element with `data-dialog` opens the dialog of that id; one with `data-close` closes the dialog around it. */
export function watchDialogs() {
  document.addEventListener("click", ({ target }) => {
    const id = target.closest("[data-dialog]")?.dataset.dialog;
    if (id) byId(id).showModal();
    if (target.closest("[data-close]")) target.closest("dialog").close();
  });
  for (const id of ["add-dialog", "collections", "detail", "help", "move-dialog", "saved-dialog"]) closeOnOutsideClick(byId(id));
}

/** Close a dialog on a click beside it, but not when a drag (a text selection) only ends there. */
function closeOnOutsideClick(dialog) {
  let pressed = null;
  const keepPageStill = (event) => event.target.closest(".side, .strip, .small > *") || event.preventDefault();
  dialog.addEventListener("wheel", keepPageStill, { passive: false });
  dialog.addEventListener("pointerdown", (event) => (pressed = event.target));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && pressed === dialog) dialog.close();
  });
}
