// Every call to the server, and its refusals as Problem with the server's own `detail`.
// Addresses are relative to the page, so that it also works below a path of a proxy.

import { here, within } from "../state/collection_context.js";
import { parts, taken } from "../state/query.js";
import { letIn, signIn } from "./session.js";

export const ID = /^[A-Za-z0-9_-]{1,64}$/;
const GATEWAY = [502, 504];
const AGAIN = 2000;
const MOST_TEXTS = 100; // of one request, well below its limits of number and of bytes
const JSON_TYPE = { "Content-Type": "application/json" };

export class Problem extends Error {
  constructor({ status = 0, code = "away", detail = "", seconds = 1 } = {}) {
    super(detail || code);
    Object.assign(this, { status, code, detail, seconds });
  }
}

export async function call(path, options = {}) {
  try {
    await letIn();
    const response = await fetch(path, options);
    if (response.status === 401) {
      await signIn(); // the key was revoked, or its time is over
      return await call(path, options);
    }
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? null : await response.json();
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem();
  }
}

export function listImages(cursor, limit, filter, signal) {
  const asked = new URLSearchParams({ limit, ...only(filter) });
  if (cursor) asked.set("cursor", cursor);
  return call(within(`v1/images?${asked}`), { signal });
}

/** A filter as a parameter of an address. */
function only(filter) {
  return filter ? { filter: JSON.stringify(filter) } : {};
}

export function getImage(id, collection) {
  return call(within(address(id), collection));
}

export function changeImage(id, change, collection) {
  return call(within(address(id), collection), { method: "PATCH", body: JSON.stringify(change), headers: JSON_TYPE });
}

/** Goes on although the page is left; a picture that is gone already counts as deleted. */
export async function deleteImage(id, collection) {
  try {
    await call(within(address(id), collection), { method: "DELETE", keepalive: true });
  } catch (problem) {
    if (problem.status !== 404) throw problem;
  }
}

let most = 1000; // hits of one search, until the server says that its operator chose fewer

export function mostHits() {
  return most;
}

/** Asks for at most `mostHits()`, which is known better after it. */
export async function search(query, k, signal) {
  const asked = Math.min(k, most);
  try {
    return await ask(query, asked, signal);
  } catch (problem) {
    const limit = Number(problem.detail?.match(/\bk must be from 1 to (\d+)/)?.[1]);
    if (!(limit < asked)) throw problem;
    most = limit;
    return ask(query, limit, signal);
  }
}

async function ask(query, k, signal) {
  const { q, like, file, target, filter } = query;
  const { words, without } = taken(q);
  if (!like.length && !file && !without.length) {
    const asked = new URLSearchParams({ q: words || q, k, target, ...only(filter) });
    return call(within(`v1/search?${asked}`), { signal });
  }
  if (file && !like.length && !q) return searchByFile(file, { k, target, ...only(filter) }, signal);
  const body = JSON.stringify({ query: parts(query, file ? await base64(file) : null), target, k, filter });
  return call(within("v1/search"), { method: "POST", body, signal, headers: JSON_TYPE });
}

export async function countTexts() {
  return (await call(within("v1/stats"))).texts;
}

export function listTexts(cursor) {
  const asked = new URLSearchParams({ limit: 100 });
  if (cursor) asked.set("cursor", cursor);
  return call(within(`v1/texts?${asked}`));
}

/** As `deleteImage`. */
export async function deleteText(id, collection) {
  try {
    await call(within(`v1/texts/${encodeURIComponent(id)}`, collection), { method: "DELETE", keepalive: true });
  } catch (problem) {
    if (problem.status !== 404) throw problem;
  }
}

/** Store texts, as many in a request as the server takes. */
export async function addTexts(lines) {
  const path = within("v1/texts"); // of now, however long it takes
  for (let from = 0; from < lines.length; from += MOST_TEXTS) {
    const texts = lines.slice(from, from + MOST_TEXTS).map((text) => ({ text }));
    await call(path, { method: "POST", body: JSON.stringify({ texts }), headers: JSON_TYPE });
  }
}

export async function listCollections() {
  return (await call("v1/collections")).collections;
}

export function getCollection(name) {
  return call(`v1/collections/${name}`);
}

export function makeCollection(name, description) {
  return call("v1/collections", { method: "POST", body: JSON.stringify({ name, description }), headers: JSON_TYPE });
}

export function describeCollection(name, description) {
  return call(`v1/collections/${name}`, { method: "PATCH", body: JSON.stringify({ description }), headers: JSON_TYPE });
}

export function dropCollection(name) {
  return call(`v1/collections/${name}`, { method: "DELETE" });
}

/** What this server gets by itself, and from where: {urls, folders, max_urls}. */
export function listSources() {
  return call("v1/sources");
}

export function askFor(body, type) {
  return call(within("v1/images/ingest"), { method: "POST", body, headers: { "Content-Type": type } });
}

export function listJobs(signal) {
  return call(`v1/jobs?limit=50&collection=${here()}`, { signal });
}

export function failedItems(job, cursor) {
  const asked = new URLSearchParams({ status: "failed", limit: 50 });
  if (cursor) asked.set("cursor", cursor);
  return call(`v1/jobs/${job}/items?${asked}`);
}

/** The name of a job's first item as its sender gave it, or null while it has none. */
export async function firstName(job) {
  const { items } = await call(`v1/jobs/${job}/items?limit=1`);
  return items[0]?.name ?? null;
}

export function act(job, action) {
  return call(`v1/jobs/${job}/${action}`, { method: "POST" });
}

/** Whether the model is there; asked where no refusal comes while it is loading. */
export async function isLoaded() {
  return (await call("v1/models", { cache: "no-store" })).loaded !== null;
}

export function addDemo() {
  return call(within("v1/demo"), { method: "POST" });
}

/** Follow a job until it ends: `told(job)` at each step. Returns what stops it. */
export function follow(job, told) {
  let events = null;
  let timer = 0;
  const begin = () => {
    events = new EventSource(`v1/jobs/${job}/events`);
    events.addEventListener("job", (event) => {
      const now = JSON.parse(event.data);
      if (!isRunning(now)) events.close(); // else the browser would ask again
      told(now);
    });
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) timer = setTimeout(begin, AGAIN); // it asks no more by itself
    });
  };
  begin();
  return () => {
    clearTimeout(timer);
    events.close();
  };
}

/** Whether there is more to come of a job; one that rests is not at its end. */
export function isRunning({ state }) {
  return state === "queued" || state === "running" || state === "paused";
}

let paths = null;

/** Whether this server has a route; newer pages meet older servers. */
export async function offers(path) {
  paths ??= call("openapi.json").then((spec) => Object.keys(spec.paths), () => (paths = null) ?? []);
  return (await paths).includes(path);
}

export function thumbnail(id, size) {
  return within(`${address(id)}/thumbnail${size ? `?size=${size}` : ""}`);
}

export function original(id) {
  return within(`${address(id)}/file`);
}

export function problemOf(status, body, seconds) {
  if (GATEWAY.includes(status) || !body?.detail) return new Problem({ status, code: status >= 500 ? "away" : "bad" });
  return new Problem({ status, code: body.code, detail: body.detail, seconds });
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  return problemOf(response.status, body, Number(response.headers.get("Retry-After")) || 1);
}

function address(id) {
  return `v1/images/${encodeURIComponent(id)}`;
}

function searchByFile(file, asked, signal) {
  const body = new FormData();
  body.append("file", file);
  return call(within(`v1/search/image?${new URLSearchParams(asked)}`), { method: "POST", body, signal });
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
