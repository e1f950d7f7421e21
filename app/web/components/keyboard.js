// Keyboard shortcuts: of the whole page, and of the grid while one of its pictures has the focus.
// The user can switch off single-character shortcuts in the help dialog, because speech input may trigger them.

import { byId } from "./dom.js";

const STORAGE_KEY = "sightline.keys";
const MOVE_KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

/** Each action returns whether it handled the key. */
export function watchKeyboard(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open], :popover-open")) return;
    const isInGrid = event.target.closest?.(".tile");
    if ((isInGrid && handleGridKey(event, actions)) || handlePageKey(event, actions)) event.preventDefault();
  });
  const end = () => actions.endWhy();
  document.addEventListener("keyup", (event) => event.key.toLowerCase() === "w" && end());
  window.addEventListener("blur", end);
  watchCheckbox();
}

function handlePageKey(event, actions) {
  const { key } = event;
  const isControl = event.ctrlKey || event.metaKey;
  const isTyping = event.target.closest?.("input:not([type=radio], [type=checkbox], [type=range]), textarea");
  if (key === "Escape") return actions.escape(event.target);
  if (key === "ArrowDown" && event.target.id === "box") return actions.focusGrid();
  const isAll = isControl && !event.altKey && key.toLowerCase() === "a";
  if (isAll && !(isTyping && event.target.value)) return actions.selectAll();
  if (isTyping) return false;
  if (isControl && key.toLowerCase() === "z") return actions.undo();
  if (isControl || event.altKey) return false;
  if (key === "Delete") return actions.remove(null);
  if (!hasSingleKeys()) return false;
  if (key.toLowerCase() === "w") return event.repeat || actions.why(document.activeElement?.closest(".tile") ?? document.querySelector(".tile:hover"));
  if (key === "/") return actions.focusSearch();
  if (key === "?") return actions.showHelp();
  return false;
}

function handleGridKey(event, actions) {
  const { key } = event;
  const { id } = event.target.dataset;
  const isControl = event.ctrlKey || event.metaKey;
  if (MOVE_KEYS.includes(key) && !isControl && !event.altKey) return actions.move(key, event.shiftKey);
  if (isControl || event.altKey) return false;
  if (key === " ") return actions.select(id, event.shiftKey);
  if (key === "Delete") return actions.remove(id);
  if (hasSingleKeys() && key.toLowerCase() === "l") return actions.searchLike(id);
  return false;
}

/** Whether the user lets single characters act. */
export function hasSingleKeys() {
  try {
    return localStorage.getItem(STORAGE_KEY) !== "off";
  } catch {
    return true;
  }
}

function watchCheckbox() {
  const checkbox = byId("single-keys");
  checkbox.checked = hasSingleKeys();
  checkbox.addEventListener("change", () => {
    try {
      localStorage.setItem(STORAGE_KEY, checkbox.checked ? "on" : "off");
    } catch {
      // a browser without storage cannot remember the choice
    }
  });
}
