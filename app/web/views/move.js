// The dialog that moves the selected pictures to another collection or to a new one, and can take that back. The page copies
// each picture and then deletes the original, because the server has no call for it: the copy has a new date.

import { createCollection, listCollections, moveImage, runConcurrently } from "../api/client.js";
import { allowedCollections, hasScope } from "../api/session.js";
import { byId, make } from "../components/dom.js";
import { makeForm, makeLabel } from "../components/form.js";
import { toast } from "../components/toast.js";
import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { markMoved } from "../state/deletions.js";
import { makeNameField } from "./collections.js";

/** `onMoved(ids)` when pictures have left the collection that is shown, or came back. */
export async function openMoveDialog(ids, onMoved) {
  const dialog = byId("move-dialog");
  const from = currentCollection();
  const start = (to) => (dialog.close(), moveAll(ids.map((id) => ({ id })), from, to, onMoved));
  byId("move-list").replaceChildren();
  byId("move-new").replaceChildren();
  dialog.showModal();
  const others = (await listCollections().catch(() => [])).filter(({ name }) => name !== from);
  byId("move-list").replaceChildren(...others.map((one) => makeLine(one, start)));
  if (hasScope("admin") && allowedCollections() === null) byId("move-new").replaceChildren(makeNewForm(start));
  dialog.querySelector("li button, input")?.focus();
}

function makeLine({ name, images }, start) {
  const count = make("span", { className: "muted" }, translateCount("count_images", images));
  const button = make("button", { type: "button", className: "collection-link" }, make("strong", {}, name), count);
  button.addEventListener("click", () => start(name));
  return make("li", {}, button);
}

function makeNewForm(start) {
  const { field, note } = makeNameField();
  const submit = async () => start((await createCollection(field.value.trim(), "")).name);
  return makeForm([makeLabel(translate("move_new"), field), note], { label: translate("move_create"), submit });
}

/** `pictures`: {id, isCopy} each; a copy stays where it is. */
async function moveAll(pictures, from, to, onMoved, isUndo = false) {
  const moved = [];
  let kept = 0;
  const showProgress = () => toast(translate("moving", { n: moved.length + kept, total: pictures.length, name: to }));
  showProgress();
  const { failed, problem } = await runConcurrently(pictures, async ({ id, isCopy }) => {
    const there = await moveImage(id, from, to, isCopy);
    if (there.kept?.length && !isCopy) kept += 1;
    else {
      markMoved(id, from, there.id, to);
      moved.push({ id: there.id, isCopy: there.duplicate });
    }
    showProgress();
  });
  onMoved(pictures.map(({ id }) => id));
  const parts = [translateCount("moved", moved.length, { name: to })];
  if (kept) parts.push(translateCount("not_moved", kept, { name: to }));
  if (failed.length) parts.push(translate("some_failed", { detail: describeError(problem) }));
  const undo = () => moveAll(moved, to, from, onMoved, true);
  toast(parts.join(" "), !isUndo && moved.length ? { action: "undo", onAction: undo } : {});
}
