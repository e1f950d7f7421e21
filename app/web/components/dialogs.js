// Opens and closes the dialogs: by buttons, and by a click outside the dialog.
// An element with `data-dialog` opens the dialog of that id; one with `data-close` closes the dialog around it.

import { byId } from "./dom.js";

export function watchDialogs() {
  document.addEventListener("click", ({ target }) => {
    const id = target.closest("[data-dialog]")?.dataset.dialog;
    if (id) byId(id).showModal();
    if (target.closest("[data-close]")) target.closest("dialog").close();
  });
  for (const id of ["add-dialog", "collections", "detail", "help"]) closeOnOutsideClick(byId(id));
}

/** Close a dialog on a click beside it, but not when a drag (a text selection) only ends there. */
function closeOnOutsideClick(dialog) {
  let pressed = null;
  const keepPageStill = (event) => event.target.closest(".side, .small > *") || event.preventDefault();
  dialog.addEventListener("wheel", keepPageStill, { passive: false });
  dialog.addEventListener("pointerdown", (event) => (pressed = event.target));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && pressed === dialog) dialog.close();
  });
}
