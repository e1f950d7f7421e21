// Asks for an API key where the server wants one, and gives it away at once: the server answers with a cookie that no
// script can read and that pictures and uploads travel with. The key itself is kept nowhere here, and is in no address.

import { byId } from "../components/dom.js";
import { words } from "../i18n/i18n.js";

let first = null; // the look at the beginning, so that nothing is asked in vain
let asking = null;
let found = null; // what the server says of this browser's key
const RANKS = ["search", "write", "admin"];

/** Once somebody is let in, or nobody has to be. */
export function letIn() {
  first ??= look().then((said) => {
    found = said;
    return said?.needed && !said.scope ? signIn() : null;
  });
  return first;
}

/** Whether whoever looks at the page may do this: `search`, `write` or `admin`. */
export function may(scope) {
  return !found?.needed || RANKS.indexOf(found.scope) >= RANKS.indexOf(scope);
}

/** The collections that the key is good for; null for all. */
export function boundTo() {
  return found?.collections ?? null;
}

/** Ask for a key, once for all who wait for it; resolves when the server has taken one. */
export function signIn() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

async function ask() {
  const dialog = byId("sign-in");
  const [field, said] = [byId("key"), byId("key-said")];
  const form = dialog.querySelector("form");
  field.value = "";
  said.hidden = true;
  dialog.showModal();
  field.focus();
  await new Promise((resolve) => {
    dialog.onclose = () => dialog.showModal(); // nothing behind it would work
    form.onsubmit = async (event) => {
      event.preventDefault();
      const wrong = await send(field.value.trim());
      if (!wrong) return resolve();
      said.textContent = wrong;
      said.hidden = false;
      field.select();
    };
  });
  dialog.onclose = null;
  field.value = "";
  dialog.close();
}

/** What was wrong with the key; empty when it was taken. */
async function send(key) {
  const headers = { "Content-Type": "application/json" };
  try {
    const answer = await fetch("v1/session", { method: "POST", headers, body: JSON.stringify({ key }) });
    if (answer.ok) {
      found = await answer.json();
      return "";
    }
    if (answer.status === 429) return words("too_many_keys", { s: Number(answer.headers.get("Retry-After")) || 60 });
    if (answer.status === 401 || answer.status === 422) return words("wrong_key");
    return (await answer.json()).detail;
  } catch {
    return words("away_short");
  }
}

async function look() {
  try {
    const answer = await fetch("v1/session", { cache: "no-store" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // the next call says so
  }
}

/** Say in the help whose key this is, and let it be given back. */
export function watchSession() {
  byId("help-button").addEventListener("click", async () => {
    const now = await look();
    byId("signed").hidden = !now?.scope;
    if (now?.scope) byId("signed-by").textContent = words("signed_in", { name: now.name, scope: now.scope });
  });
  byId("sign-out").addEventListener("click", async () => {
    await fetch("v1/session", { method: "DELETE" }).catch(() => null);
    location.reload();
  });
}
