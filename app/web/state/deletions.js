// Deletes pictures with a way back. They leave the page at once; the server deletes them when the time to undo is over
// or the user leaves the page, which the browser asks about. A second deletion joins those that wait, so all of them can
// still be undone. Pictures that were moved to another collection leave the page in the same way.

import { deleteImage, runConcurrently } from "../api/client.js";
import { toast } from "../components/toast.js";
import { describeError, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "./collection_context.js";

const MAX_KEEPALIVE = 100; // requests that a browser still sends while the user leaves the page
const deleted = new Set(); // keys of `makeKey`, whether the server knows yet or not
let pending = []; // [id, collection, isPrepared] each
let preparations = []; // functions to call before the server deletes what is pending
let onChange = () => {};
let onUndo = () => {};

/** `onChange()` after pictures left or came back, `onUndo(ids)` after the user took a deletion back. */
export function watchDeletions(listeners) {
  ({ onChange, onUndo } = listeners);
  window.addEventListener("pagehide", () => {
    for (const prepare of preparations.splice(0)) prepare({ keepalive: true }).catch(() => {});
    for (const one of pending.splice(0)) remove(one).catch(() => {});
  });
  window.addEventListener("beforeunload", (event) => pending.length && event.preventDefault()); // the last chance to undo
}

export function isDeleted(id) {
  return deleted.has(makeKey([id, currentCollection()]));
}

/** A picture has left the collection `from` and is now in `to`. Call `onChange` of `watchDeletions` after all of them. */
export function markMoved(id, from, idThere, to) {
  deleted.add(makeKey([id, from]));
  deleted.delete(makeKey([idThere, to]));
}

/**
 * `prepare(options)` is called before the server deletes them; if it fails, none is deleted. `options` are those of fetch.
 * `isPrepared`: it deletes them itself.
 */
export function deleteWithUndo(ids, prepare = null, isPrepared = false) {
  if (!ids.length) return;
  const added = ids.map((id) => [id, currentCollection(), isPrepared]);
  const isSeparate = pending.length + added.length > MAX_KEEPALIVE;
  const all = isSeparate ? added : [...pending.splice(0), ...added];
  const allPreparations = [...(isSeparate ? [] : preparations.splice(0)), ...(prepare ? [prepare] : [])];
  const text = translateCount("deleted", all.length);
  toast(text, { action: "undo", onAction: () => undo(all), onEnd: commit }); // first commits what is still pending
  pending = [...all];
  preparations = allPreparations;
  added.forEach((one) => deleted.add(makeKey(one)));
  onChange();
}

async function remove([id, collection, isPrepared]) {
  if (!isPrepared) await deleteImage(id, collection);
}

function makeKey([id, collection]) {
  return `${collection}/${id}`;
}

function undo(all) {
  [pending, preparations] = [[], []];
  restore(all);
  onUndo(all.map(([id]) => id));
}

async function commit() {
  const all = pending.splice(0);
  let { failed, problem } = await runConcurrently(preparations.splice(0), (prepare) => prepare());
  if (failed.length) failed = all;
  else ({ failed, problem } = await runConcurrently(all, remove));
  if (!failed.length) return;
  restore(failed);
  toast(`${translateCount("not_deleted", failed.length)} ${describeError(problem)}`);
}

function restore(all) {
  all.forEach((one) => deleted.delete(makeKey(one)));
  onChange();
}
