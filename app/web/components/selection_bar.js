// The bar at the foot of the page: how many pictures are selected, and what the user can do with them, such as add or remove
// a tag, or download them. Also the button that starts and ends selecting on devices without hover or Shift.

import { getFile, runConcurrently, updateTags } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { describeError, translate, translateCount, translateElements } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { deselect, isSelecting, onSelectionChange, selectedHits, startSelecting } from "../state/selection.js";
import { MAX_LIKE } from "../state/url_state.js";
import { byId, make, makeButton } from "./dom.js";
import { toast } from "./toast.js";

const MAX_DOWNLOADS = 20; // a browser asks the user before it saves many files
const REVOKE_MS = 60_000; // by then the browser has read the file

/** `onAction(action)`: "all", "like", "tag", "move", "download" or "remove". */
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
  for (const [action, most] of [["like", MAX_LIKE], ["download", MAX_DOWNLOADS]]) {
    const button = bar.querySelector(`[data-action=${action}]`);
    button.disabled = n > most;
    button.title = n > most ? translate("too_many", { n: most }) : "";
  }
  for (const button of bar.querySelectorAll("[data-action=tag], [data-action=move], [data-action=remove]")) button.hidden = !hasScope("write");
  translateElements(bar);
}

/** Ask for a tag to add to the selected pictures, or to remove from them; `onChange(image)` after each. */
export function openTagDialog(onChange) {
  const dialog = byId("tag-dialog");
  const field = byId("tag");
  const hits = selectedHits();
  const counts = new Map();
  for (const tag of hits.flatMap(({ image }) => image.tags)) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const buttons = [...counts].sort((a, b) => b[1] - a[1]).map(([tag, n]) => {
    const button = makeButton("", `${tag} (${n.toLocaleString()}) ×`, { dir: "auto", ariaLabel: translateCount("untag", n, { tag }) });
    button.addEventListener("click", () => (dialog.close(), changeTag(hits, tag, false, onChange)));
    return make("li", {}, button);
  });
  byId("selected-tags").replaceChildren(...buttons);
  byId("selected-tags-title").hidden = !buttons.length;
  field.value = "";
  dialog.querySelector("form").onsubmit = () => {
    const tag = field.value.trim();
    if (tag) changeTag(hits, tag, true, onChange);
  };
  dialog.showModal();
}

/** Add a tag to pictures or remove it, and offer to undo that. */
async function changeTag(hits, tag, isAdded, onChange, canUndo = true) {
  const collection = currentCollection();
  const changed = [];
  const { failed, problem } = await runConcurrently(hits, async (hit) => {
    const image = await updateTags(hit.id, (tags) => {
      if (tags.includes(tag) === isAdded) return tags;
      changed.push(hit);
      return isAdded ? [...tags, tag] : tags.filter((one) => one !== tag);
    }, collection);
    onChange(image);
  });
  const n = isAdded ? hits.length - failed.length : changed.length;
  const text = translateCount(isAdded ? "tagged" : "untagged", n, { tag });
  const undo = () => changeTag(changed, tag, !isAdded, onChange, false);
  toast(
    problem ? `${text} ${translate("some_failed", { detail: describeError(problem) })}` : text,
    canUndo && changed.length ? { action: "undo", onAction: undo } : {},
  );
}

/** Save the originals one after the other, under the names that they came with. */
export async function downloadSelected() {
  const { failed, problem } = await runConcurrently(selectedHits(), async ({ id, image }) => {
    const url = URL.createObjectURL(await getFile(id));
    make("a", { href: url, download: image.source?.split("/").at(-1) ?? `${id}.${image.format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), REVOKE_MS);
  });
  if (failed.length) toast(translate("not_done", { detail: describeError(problem) }));
}
