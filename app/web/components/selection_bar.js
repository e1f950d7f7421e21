// The bar at the foot of the page: how many pictures are selected, and what the user can do with them, such as add a tag.
// Also the button that starts and ends selecting on devices without hover or Shift.

import { getImage, runConcurrently, updateImage } from "../api/client.js";
import { describeError, translate, translateCount, translateElements } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { deselect, isSelecting, onSelectionChange, selectedHits, startSelecting } from "../state/selection.js";
import { MAX_LIKE } from "../state/url_state.js";
import { byId } from "./dom.js";
import { toast } from "./toast.js";

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

/** Ask for a tag and add it to the selected pictures; `onChange(image)` after each. */
export function openTagDialog(onChange) {
  const dialog = byId("tag-dialog");
  const field = byId("tag");
  field.value = "";
  dialog.querySelector("form").onsubmit = () => {
    const tag = field.value.trim();
    if (tag) addTag(selectedHits(), tag, onChange);
  };
  dialog.showModal();
}

async function addTag(hits, tag, onChange) {
  const collection = currentCollection();
  const { failed, problem } = await runConcurrently(hits, async ({ id }) => {
    const image = await getImage(id, collection); // keeps tags that others have added meanwhile
    const hasTag = image.tags.includes(tag);
    onChange(hasTag ? image : await updateImage(id, { tags: [...image.tags, tag] }, collection));
  });
  const text = translateCount("tagged", hits.length - failed.length, { tag });
  toast(problem ? `${text} ${translate("some_failed", { detail: describeError(problem) })}` : text);
}
