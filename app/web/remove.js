// Deleting with a way back: pictures leave the page at once, the server is told when the time to undo is over,
// or when the page is left. So what was undone was never deleted, and what the server said is gone is gone.
// What is deleted meanwhile joins the wait, so that a second press never makes the first final.

import { deleteImage } from "./server.js";
import { toast } from "./toast.js";
import { counted, words } from "./words.js";

const AT_ONCE = 6;
const SURE = 100; // requests that a browser still sends for a page that is left
const gone = new Set();
let pending = [];
let listen = () => {};
let back = () => {};

export function watchRemoval({ changed, returned }) {
  listen = changed;
  back = returned;
  window.addEventListener("pagehide", () => pending.splice(0).forEach((id) => deleteImage(id).catch(() => {})));
  window.addEventListener("beforeunload", (event) => pending.length > SURE && event.preventDefault());
}

export function isGone(id) {
  return gone.has(id);
}

export function remove(ids) {
  if (!ids.length) return;
  const all = pending.length + ids.length > SURE ? [...ids] : [...pending.splice(0), ...ids];
  const text = counted("deleted", all.length);
  toast(text, { action: "undo", undo: () => bringBack(all), done: commit }); // ends the one before first
  pending = [...all];
  ids.forEach((id) => gone.add(id));
  listen();
}

function bringBack(ids) {
  pending = [];
  bringBackOnly(ids);
  back(ids);
}

async function commit() {
  const waiting = pending;
  pending = [];
  const failed = [];
  let why = null;
  const one = async () => {
    for (let id = waiting.pop(); id; id = waiting.pop()) {
      await deleteImage(id).catch((problem) => {
        failed.push(id);
        why = problem;
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  if (!failed.length) return;
  bringBackOnly(failed);
  toast(`${counted("not_deleted", failed.length)} ${why.detail || words("away_short")}`);
}

function bringBackOnly(ids) {
  ids.forEach((id) => gone.delete(id));
  listen();
}
