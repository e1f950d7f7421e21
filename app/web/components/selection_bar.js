// The bar at the foot of the page: how many pictures are selected, and what the user can do with them.
// Also the button that starts and ends selecting on devices without hover or Shift.

import { translate, translateElements } from "../i18n/i18n.js";
import { deselect, isSelecting, onSelectionChange, selectedHits, startSelecting } from "../state/selection.js";
import { MAX_LIKE } from "../state/url_state.js";
import { byId } from "./dom.js";

/** `onAction(action)`: "like", "tag" or "remove". */
export function watchSelectionBar({ onAction }) {
  byId("select").addEventListener("click", () => {
    if (isSelecting()) deselect();
    else startSelecting();
  });
  byId("selection").addEventListener("click", (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (action === "none") deselect();
    else if (action) onAction(action);
  });
  onSelectionChange(showSelectionBar);
}

export function showSelectionBar() {
  const n = selectedHits().length;
  const bar = byId("selection");
  bar.hidden = !n;
  byId("selection-count").textContent = translate("selected", { n });
  byId("select").ariaPressed = String(isSelecting());
  document.body.classList.toggle("selecting", isSelecting());
  const like = bar.querySelector("[data-action=like]");
  like.disabled = n > MAX_LIKE;
  like.title = n > MAX_LIKE ? translate("too_many_like", { n: MAX_LIKE }) : "";
  translateElements(bar);
}
