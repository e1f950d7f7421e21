// Sends every request to the server, and throws its refusals as `Problem` with the server's own `detail`.
// Paths are relative to the page, so that the page also works below a path prefix of a proxy.

import { currentCollection, withCollection } from "../state/collection_context.js";
import { buildParts, parseQuery } from "../state/query.js";
import { requireSession, signIn } from "./session.js";

const MAX_FRAMES = 300; // of a video that are shown
export const ID = /^[A-Za-z0-9_-]{1,64}$/;
const GATEWAY_ERRORS = [502, 504];
const RECONNECT_MS = 2000;
const TEXTS_PER_REQUEST = 100; // well below the server's limits of number and bytes
const PARALLEL_REQUESTS = 6; // a browser opens six connections to a server
const JSON_HEADERS = { "Content-Type": "application/json" };
const FACETS = ["tags", "format", "year"]; // with the first page of a list
const FACET_SIZE = 6;
const LOCAL_DAY = new Intl.DateTimeFormat("sv-SE"); // as 2026-01-31

class Problem extends Error {
  /** `code` is "no_answer" if no server answered. `seconds`: how long to wait before the next attempt. */
  constructor({ status = 0, code = "no_answer", detail = "", seconds = 1 } = {}) {
    super(detail || code);
    Object.assign(this, { status, code, detail, seconds });
  }
}

async function request(path, options = {}, read = (response) => response.json()) {
  try {
    await requireSession();
    const response = await fetch(path, options);
    if (response.status === 401) {
      await signIn(); // the key has been revoked or has expired
      return await request(path, options, read);
    }
    if (!response.ok) throw await readProblem(response);
    return response.status === 204 ? null : await read(response);
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem();
  }
}

/** Add parameters to a path; leaves out those without a value. */
function makePath(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return `${path}?${new URLSearchParams(given)}`;
}

function send(method, path, body, options = {}) {
  return request(path, { method, body: JSON.stringify(body), headers: JSON_HEADERS, ...options });
}

/** A picture or text that does not exist counts as deleted. The request goes on while the user leaves the page. */
async function requestDeletion(path) {
  try {
    await request(path, { method: "DELETE", keepalive: true });
  } catch (problem) {
    if (problem.status !== 404) throw problem;
  }
}

/** Call `work(item)` for each item, six at a time; gives the items that failed and the last problem. */
export async function runConcurrently(items, work) {
  const waiting = [...items];
  const failed = [];
  let problem = null;
  const runNext = async () => {
    while (waiting.length) {
      const item = waiting.pop();
      try {
        await work(item);
      } catch (error) {
        failed.push(item);
        problem = error;
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_REQUESTS }, runNext));
  return { failed, problem };
}

// Images

/** The first page, without a cursor, also counts the whole list. */
export function listImages(cursor, limit, { filter = null, sort = "" } = {}, signal) {
  const first = !cursor && { count: true, facets: FACETS.join(), facet_size: FACET_SIZE };
  const path = makePath("v1/images", { limit, filter: filter && JSON.stringify(filter), cursor, order_by: sort, ...first });
  return request(withCollection(path), { signal });
}

export function getImage(id, collection) {
  return request(withCollection(imagePath(id), collection));
}

/** What second passes found in a picture: {enrichments: {ocr: {state, result: {lines}}}}. */
export function getEnrichments(id) {
  return request(withCollection(`${imagePath(id)}/enrichments`));
}

export function updateImage(id, change, collection, options) {
  return send("PATCH", withCollection(imagePath(id), collection), change, options);
}

/** Let a second pass ("ocr", "caption") take a picture again. */
export function enrichAgain(kind, id, collection) {
  return send("POST", withCollection("v1/enrichments", collection), { kind, ids: [id] });
}

/** Gives {answers: [{answer, probability}], by, model, warnings}, the likeliest answer first. */
export function askAboutImage(id, question, answers, collection) {
  return send("POST", withCollection(`${imagePath(id)}/ask`, collection), { question, answers });
}

/** Change the tags by `edit(tags)`, which gets those that the server has now; gives the record. */
export async function updateTags(id, edit, collection) {
  const image = await getImage(id, collection);
  const tags = edit(image.tags);
  return tags.join("\n") === image.tags.join("\n") ? image : updateImage(id, { tags }, collection);
}

/** Take off an auto-tag for good; gives the record. */
export async function rejectTag(id, tag, collection) {
  const { rejected_tags } = await getImage(id, collection);
  return updateImage(id, { rejected_tags: [...new Set([...rejected_tags, tag])] }, collection);
}

/** The original as a Blob. */
export function getFile(id, collection) {
  return request(fileUrl(id, collection), {}, (response) => response.blob());
}

/** Add one picture, and wait up to `wait` seconds until searches find it; gives its record. `said`: {id, caption, tags, metadata}. */
export function addImage(file, name, said = {}, collection, wait = 0) {
  const body = new FormData();
  body.append("file", file, name);
  for (const field of ["id", "caption"]) if (said[field]) body.append(field, said[field]);
  for (const tag of said.tags ?? []) body.append("tags", tag);
  if (said.metadata) body.append("metadata", JSON.stringify(said.metadata));
  return request(withCollection(makePath("v1/images", { wait }), collection), { method: "POST", body });
}

/**
 * Copy a picture to another collection, where it keeps its id if that is free, and delete it in the first one. Gives the
 * record there. It stays in both if `isCopy`, or if the other collection has these bytes with another caption, tags or metadata.
 */
export async function moveImage(id, from, to, isCopy = false) {
  const image = await getImage(id, from);
  const file = await getFile(id, from);
  const add = (said) => retryWhileBusy(() => addImage(file, image.source ?? "", said, to));
  const there = await add(image).catch((problem) => {
    if (problem.code !== "id_conflict") throw problem;
    return add({ ...image, id: null });
  });
  if (!isCopy && !there.kept?.length) await deleteImage(id, from);
  return there;
}

async function retryWhileBusy(send) {
  for (;;) {
    try {
      return await send();
    } catch (problem) {
      if (problem.status !== 429) throw problem;
      await new Promise((resolve) => setTimeout(resolve, problem.seconds * 1000));
    }
  }
}

export function deleteImage(id, collection) {
  return requestDeletion(withCollection(imagePath(id), collection));
}

export function thumbnailUrl(id, size) {
  return withCollection(`${imagePath(id)}/thumbnail${size ? `?size=${size}` : ""}`);
}

export function fileUrl(id, collection) {
  return withCollection(`${imagePath(id)}/file`, collection);
}

function imagePath(id) {
  return `v1/images/${encodeURIComponent(id)}`;
}

/** Which part of a picture met the words, and which of the words counted. */
export function explainImage(id, query) {
  return request(explanationUrl(id, query));
}

/** The same as a picture with a heat map, for an `img`. */
export function explanationUrl(id, { q, isTimeOff = false }, size) {
  const time = isTimeOff ? { time_words: "false" } : { today: LOCAL_DAY.format() };
  return withCollection(makePath(`${imagePath(id)}/explain`, { q, size, ...time }));
}

// Videos

/** The frames of a video in the order of their times. */
export async function listFrames(id, signal) {
  const filter = JSON.stringify({ must: [{ key: "video_id", match: { value: id } }] });
  return (await request(withCollection(makePath("v1/images", { filter, order_by: "t_ms", limit: MAX_FRAMES })), { signal })).images;
}

export function videoUrl(id) {
  return withCollection(`${videoPath(id)}/file`);
}

/** Delete a video with its frames. */
export function deleteVideo(id, collection) {
  return requestDeletion(withCollection(videoPath(id), collection));
}

function videoPath(id) {
  return `v1/videos/${encodeURIComponent(id)}`;
}

// Search

let maxHits = 1000; // of one search; an operator may set a lower limit, which the server's refusal names

export function hitLimit() {
  return maxHits;
}

/** Search for the `k` nearest, but at most for `hitLimit()`, which a refusal of the server may lower. */
export async function search(query, k, signal) {
  const wanted = Math.min(k, maxHits);
  try {
    return await requestSearch(query, wanted, signal);
  } catch (problem) {
    const limit = Number(problem.detail?.match(/\bk must be from 1 to (\d+)/)?.[1]);
    if (!(limit < wanted)) throw problem;
    maxHits = limit;
    return requestSearch(query, limit, signal);
  }
}

async function requestSearch(query, k, signal) {
  const { q, like, file, target, filter, liked = [], unliked = [], sort = "", isGrouped = false, isTimeOff = false } = query;
  const { words, without } = parseQuery(q);
  const isJudged = Boolean(liked.length || unliked.length);
  const options = { k, target, filter: filter && JSON.stringify(filter), order_by: sort, collapse: isGrouped };
  const today = LOCAL_DAY.format(); // of "yesterday"; the server's may be another
  if (!like.length && !file && !without.length && !isJudged) {
    const time = isTimeOff ? { time_words: "false" } : { today };
    return request(withCollection(makePath("v1/search", { q: words || q, ...options, ...time })), { signal });
  }
  if (file && !like.length && !q && !isJudged) {
    const body = new FormData();
    body.append("file", file);
    for (const [name, value] of Object.entries(options)) if (value) body.append(name, value);
    return request(withCollection("v1/search/image"), { method: "POST", body, signal });
  }
  const parts = buildParts(query, file ? await encodeBase64(file) : null);
  const body = { query: parts, target, k, filter, like: liked, unlike: unliked, collapse: isGrouped, order_by: sort || null, today };
  if (isTimeOff) body.time_words = false;
  return send("POST", withCollection("v1/search"), body, { signal });
}

function encodeBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// Saved searches

export async function listSavedSearches() {
  const { saved_searches } = await request(withCollection("v1/saved-searches"));
  return saved_searches;
}

/** Keep a search: without `least`, what fits well counts. */
export function saveSearch({ q, like, filter, weight, liked, unliked }, name, least) {
  const query = { query: buildParts({ q, like, weight }, null), filter, like: liked, unlike: unliked, score_threshold: least };
  return send("POST", withCollection("v1/saved-searches"), { name, query, match: least === null ? "good" : null });
}

/** Everything that it has found is seen. The request goes on while the user leaves the page. */
export function seeSavedSearch(id) {
  return send("PATCH", `v1/saved-searches/${id}`, { seen: true }, { keepalive: true });
}

export function deleteSavedSearch(id) {
  return requestDeletion(`v1/saved-searches/${id}`);
}

// Duplicates

/** Groups of duplicates: {groups: [{images: [{id, distance, image}], size}], total, extra, next_cursor, scan}. */
export function listDuplicates(kind, cursor, signal) {
  return request(withCollection(makePath("v1/duplicates", { kind, cursor })), { signal });
}

/** Begin a search for duplicates; gives its job. */
export function findDuplicates() {
  return request(withCollection("v1/duplicates"), { method: "POST" });
}

// Texts

export function listTexts(cursor, limit = 100) {
  return request(withCollection(makePath("v1/texts", { limit, cursor })));
}

export function deleteText(id, collection) {
  return requestDeletion(withCollection(`v1/texts/${encodeURIComponent(id)}`, collection));
}

export async function addTexts(lines) {
  const path = withCollection("v1/texts"); // the user may open another collection meanwhile
  for (let from = 0; from < lines.length; from += TEXTS_PER_REQUEST) {
    await send("POST", path, { texts: lines.slice(from, from + TEXTS_PER_REQUEST).map((text) => ({ text })) });
  }
}

// Collections

export async function listCollections() {
  return (await request("v1/collections")).collections;
}

export function getCollection(name) {
  return request(`v1/collections/${name}`);
}

export function createCollection(name, description) {
  return send("POST", "v1/collections", { name, description });
}

export function updateCollection(name, description) {
  return send("PATCH", `v1/collections/${name}`, { description });
}

export function deleteCollection(name) {
  return request(`v1/collections/${name}`, { method: "DELETE" });
}

// Imports and jobs

/** The sources that this server can import from: {urls, folders, max_urls}. */
export function listSources() {
  return request("v1/sources");
}

export function startImport(body, type) {
  return request(withCollection("v1/images/ingest"), { method: "POST", body, headers: { "Content-Type": type } });
}

export function startDemo() {
  return request(withCollection("v1/demo"), { method: "POST" });
}

export function listJobs(signal) {
  return request(`v1/jobs?limit=50&collection=${currentCollection()}`, { signal });
}

export function listWatches(signal) {
  return request(`v1/watches?collection=${currentCollection()}`, { signal });
}

/** Pause or resume a watched folder, or confirm the deletions that it holds. */
export function controlWatch(watch, action) {
  return request(`v1/watches/${watch}/${action}`, { method: "POST" });
}

export function listFailedItems(job, cursor) {
  return request(makePath(`v1/jobs/${job}/items`, { status: "failed", limit: 1000, cursor }));
}

/** The first files of a job whose bytes the collection had. */
export function listDuplicateItems(job) {
  return request(makePath(`v1/jobs/${job}/items`, { status: "duplicate", limit: 20 }));
}

/** Measure how good the search is on the captions of the collection; gives the job. */
export function startEvaluation() {
  return send("POST", withCollection("v1/evaluations"), { source: "captions" });
}

/** Let the server learn what the captions of the collection mean, without using it yet; gives the job. */
export function startTeaching() {
  return send("POST", withCollection("v1/heads"), { source: "captions", take_on: false });
}

/** What the collection was taught: {heads}, newest first. */
export function listHeads() {
  return request(`v1/heads?collection=${currentCollection()}`);
}

/** Let the collection use a head; null takes it off. */
export function useHead(head) {
  return send("PUT", `v1/collections/${currentCollection()}/head`, { head });
}

export function getJob(id) {
  return request(`v1/jobs/${id}`);
}

/** The name of a job's first item, or null while the job has none. */
export async function getFirstItemName(job) {
  const { items } = await request(`v1/jobs/${job}/items?limit=1`);
  return items[0]?.name ?? null;
}

/** `action`: "retry", "cancel", "pause" or "resume". */
export function controlJob(job, action) {
  return request(`v1/jobs/${job}/${action}`, { method: "POST" });
}

/** Call `onUpdate(job)` for every change of a job until it ends. Returns a function that stops this. */
export function followJob(id, onUpdate) {
  let events = null;
  let timer = 0;
  const connect = () => {
    events = new EventSource(`v1/jobs/${id}/events`);
    events.addEventListener("job", (event) => {
      const job = JSON.parse(event.data);
      if (!isUnfinished(job)) events.close(); // otherwise the browser would connect again
      onUpdate(job);
    });
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) timer = setTimeout(connect, RECONNECT_MS); // the browser gave up
    });
  };
  connect();
  return () => {
    clearTimeout(timer);
    events.close();
  };
}

export function isUnfinished({ state }) {
  return state === "queued" || state === "running" || state === "paused";
}

// The server itself

/** Counts of the collection, and the model: {images: {total, failed, …}, texts, model, …}. */
export function getStats() {
  return request(withCollection("v1/stats"));
}

/** The model in memory, {name, knows, hint, …}, or null while the server loads it and cannot search. */
export async function getModel() {
  return (await request("v1/models", { cache: "no-store" })).loaded;
}

export async function isAlive() {
  return (await fetch("livez", { cache: "no-store" })).ok || null;
}

export function makeProblem(status, body, seconds) {
  if (GATEWAY_ERRORS.includes(status) || !body?.detail) {
    return new Problem({ status, code: status >= 500 ? "no_answer" : "unknown" });
  }
  return new Problem({ status, code: body.code, detail: body.detail, seconds });
}

async function readProblem(response) {
  const body = await response.json().catch(() => null);
  return makeProblem(response.status, body, Number(response.headers.get("Retry-After")) || 1);
}
