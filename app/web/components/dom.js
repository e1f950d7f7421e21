// Makes elements: properties are set as properties, children are nodes or plain text.
// Text never passes through a parser, so captions and names cannot become markup.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

/** Close a dialog by a press beside it; one that only ends there, as when text is selected, does not. */
export function closeBeside(dialog) {
  let pressed = null;
  const still = (event) => event.target.closest(".side, .small > *") || event.preventDefault(); // the page behind stays
  dialog.addEventListener("wheel", still, { passive: false });
  dialog.addEventListener("pointerdown", (event) => (pressed = event.target));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && pressed === dialog) dialog.close();
  });
}
