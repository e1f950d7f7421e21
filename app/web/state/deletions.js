// Deleting with a way back: pictures leave the page at once, the server is told when the time to undo is over,
// or when the page is left. So what was undone was never deleted, and what the server said is gone is gone.
// What is deleted meanwhile joins the wait, so that a second press never makes the first final.

import { here } from "./collection_context.js";
import { deleteImage } from "../api/client.js";
import { toast } from "../components/toast.js";
import { counted, words } from "../i18n/i18n.js";

const AT_ONCE = 6;
const SURE = 100; // requests that a browser still sends for a page that is left
const gone = new Set(); // `keyOf` each
let pending = []; // [id, collection] each
let listen = () => {};
let back = () => {};

export function watchRemoval({ changed, returned }) {
  listen = changed;
  back = returned;
  window.addEventListener("pagehide", () => pending.splice(0).forEach((one) => deleteImage(...one).catch(() => {})));
  window.addEventListener("beforeunload", (event) => pending.length > SURE && event.preventDefault());
}

export function isGone(id) {
  return gone.has(keyOf([id, here()]));
}

export function remove(ids) {
  if (!ids.length) return;
  const now = ids.map((id) => [id, here()]);
  const all = pending.length + now.length > SURE ? now : [...pending.splice(0), ...now];
  const text = counted("deleted", all.length);
  toast(text, { action: "undo", undo: () => bringBack(all), done: commit }); // ends the one before first
  pending = [...all];
  now.forEach((one) => gone.add(keyOf(one)));
  listen();
}

function keyOf([id, collection]) {
  return `${collection}/${id}`;
}

function bringBack(all) {
  pending = [];
  bringBackOnly(all);
  back(all.map(([id]) => id));
}

async function commit() {
  const waiting = pending;
  pending = [];
  const failed = [];
  let why = null;
  const one = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      await deleteImage(...next).catch((problem) => {
        failed.push(next);
        why = problem;
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  if (!failed.length) return;
  bringBackOnly(failed);
  toast(`${counted("not_deleted", failed.length)} ${why.detail || words("away_short")}`);
}

function bringBackOnly(all) {
  all.forEach((one) => gone.delete(keyOf(one)));
  listen();
}
