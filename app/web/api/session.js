// Asks for an API key if the server requires one, and exchanges it for a cookie that scripts cannot read and that also
// goes with pictures and uploads. The page does not store the key, and no address contains it.

import { byId } from "../components/dom.js";
import { handleSubmit } from "../components/form.js";
import { translate } from "../i18n/i18n.js";

const SCOPES = ["search", "write", "admin"]; // each includes those before it
let session = null; // as the server describes it
let firstCheck = null; // a promise, so that no request goes out before the user has signed in
let signingIn = null;

/** Wait until the user has signed in, if the server requires it. */
export function requireSession() {
  firstCheck ??= fetchSession().then((answer) => {
    session = answer;
    return answer?.needed && !answer.scope ? signIn() : null;
  });
  return firstCheck;
}

/** Whether the user's key has this scope: `search`, `write` or `admin`. */
export function hasScope(scope) {
  return !session?.needed || SCOPES.indexOf(session.scope) >= SCOPES.indexOf(scope);
}

/** The names of the collections that the key may use, or null for all. */
export function allowedCollections() {
  return session?.collections ?? null;
}

/** Show the sign-in dialog, once for all requests that wait for it, until the server accepts a key. */
export function signIn() {
  signingIn ??= showSignIn().finally(() => (signingIn = null));
  return signingIn;
}

async function showSignIn() {
  const dialog = byId("sign-in");
  const field = byId("key");
  field.value = "";
  byId("sign-in-error").hidden = true;
  dialog.showModal();
  field.focus();
  await new Promise((resolve) => {
    dialog.onclose = () => dialog.showModal(); // the page cannot work without a key
    handleSubmit(dialog.querySelector("form"), async () => {
      try {
        await sendKey(field.value.trim());
        resolve();
      } catch (problem) {
        field.focus();
        field.select();
        throw problem;
      }
    });
  });
  dialog.onclose = null;
  field.value = "";
  dialog.close();
}

/** Throw {detail} if the server does not accept the key. */
async function sendKey(key) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("v1/session", { method: "POST", headers, body: JSON.stringify({ key }) });
  if (answer.ok) session = await answer.json();
  else throw { detail: await describeRefusal(answer) };
}

async function describeRefusal(answer) {
  if (answer.status === 429) return translate("too_many_keys", { s: Number(answer.headers.get("Retry-After")) || 60 });
  if (answer.status === 401 || answer.status === 422) return translate("wrong_key");
  return (await answer.json()).detail;
}

async function fetchSession() {
  try {
    const answer = await fetch("v1/session", { cache: "no-store" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // the next request reports the problem
  }
}

/** Show in the help dialog which key is in use, with a button to sign out. */
export function watchSession() {
  byId("help-button").addEventListener("click", async () => {
    const { name, scope } = (await fetchSession()) ?? {};
    byId("signed-in").hidden = !scope;
    if (scope) byId("signed-in-text").textContent = translate("signed_in", { name, scope });
  });
  byId("sign-out").addEventListener("click", async () => {
    await fetch("v1/session", { method: "DELETE" }).catch(() => null);
    location.reload();
  });
}
