// The state of the page and its address:
// `?collection=&q=&target=&like=&weight=&liked=&unliked=&sort=&grouped=&time=&tag=&format=&from=&to=&meta=&job=&show=&view=`.
// A dropped picture has no address: this module keeps the file under a number, which the history entry stores.

import { ID } from "../api/client.js";
import { COLLECTION_NAME, currentCollection, DEFAULT, homeCollection } from "./collection_context.js";
import { buildFilter, readFilter, selectApplicable } from "./filter.js";

export const EQUAL_WEIGHT = 0.5; // the weight of the pictures in a search that also has words
export const MAX_LIKE = 16;
export const SORTS = ["-created_at", "created_at", "-taken_at", "-bytes"]; // beside the ranking of a search, or the newest of a list
const VIEWS = ["jobs", "duplicates"]; // beside the results
const droppedFiles = new Map(); // number -> File
const isNewVisit = performance.getEntriesByType("navigation")[0]?.type === "navigate"; // cannot miss an earlier picture

export function rememberFile(file) {
  const number = performance.timeOrigin + droppedFiles.size; // unique across reloads of the page
  droppedFiles.set(number, file);
  return number;
}

export function readState() {
  const parameters = new URLSearchParams(location.search);
  const entry = history.state ?? {};
  const number = entry.picture ?? null;
  const collection = parameters.get("collection") ?? "";
  return {
    collection: COLLECTION_NAME.test(collection) ? collection : homeCollection(),
    q: parameters.get("q") ?? "",
    target: parameters.get("target") === "texts" ? "texts" : "images",
    like: readIds(parameters.get("like")),
    liked: readIds(parameters.get("liked")),
    unliked: readIds(parameters.get("unliked")),
    sort: SORTS.find((one) => one === parameters.get("sort")) ?? "",
    isGrouped: parameters.get("grouped") === "1",
    isTimeOff: parameters.get("time") === "off", // words of time are words like others
    weight: parseWeight(parameters.get("weight")),
    conditions: readFilter(parameters),
    show: parameters.get("show") || null,
    view: VIEWS.includes(parameters.get("view")) ? parameters.get("view") : "results",
    picture: droppedFiles.has(number) ? number : null,
    isPictureLost: number !== null && !droppedFiles.has(number) && !isNewVisit,
    depth: entry.depth ?? 0, // how many pictures clicks have opened since the results, so that closing goes back so far
    scroll: entry.scroll ?? 0,
    count: entry.count ?? 0,
  };
}

export function getQuery(state) {
  const { q, like, target, weight, conditions, picture } = state;
  const file = picture ? droppedFiles.get(picture) : null;
  const filter = buildFilter(conditions, target);
  return { q: q.trim(), like, file, target, weight, filter, ...getArrangement(state) };
}

/** How the results are arranged; labels are not, and only a search has feedback and groups. */
function getArrangement({ q, like, picture, target, liked, unliked, sort, isGrouped, isTimeOff }) {
  const isImages = target === "images";
  const isSearch = isImages && Boolean(q.trim() || like.length || picture);
  return { liked: isSearch ? liked : [], unliked: isSearch ? unliked : [], isGrouped: isSearch && isGrouped, isTimeOff: isSearch && isTimeOff, sort: isImages ? sort : "" };
}

/** A text that is equal for two states if they have the same results. */
export function makeSearchKey(state) {
  const { collection, q, target, like, picture, weight, conditions } = state;
  const isMixed = q.trim() && (like.length || picture);
  const applicable = selectApplicable(conditions, target);
  const balance = isMixed ? weight : EQUAL_WEIGHT;
  return JSON.stringify([collection, q.trim(), target, like, picture, balance, applicable, getArrangement(state)]);
}

export function makeHref(state) {
  const parameters = new URLSearchParams();
  const collection = state.collection ?? currentCollection();
  if (collection !== DEFAULT) parameters.set("collection", collection);
  if (state.q?.trim()) parameters.set("q", state.q);
  if (state.target === "texts") parameters.set("target", state.target);
  for (const name of ["like", "liked", "unliked"]) if (state[name]?.length) parameters.set(name, state[name].join(","));
  if (state.sort) parameters.set("sort", state.sort);
  if (state.isGrouped) parameters.set("grouped", "1");
  if (state.isTimeOff) parameters.set("time", "off");
  if ((state.weight ?? EQUAL_WEIGHT) !== EQUAL_WEIGHT) parameters.set("weight", state.weight);
  for (const [kind, value] of state.conditions ?? []) parameters.append(kind, value);
  if (VIEWS.includes(state.view)) parameters.set("view", state.view);
  if (state.show) parameters.set("show", state.show);
  return parameters.size ? `?${parameters.toString().replaceAll("%2C", ",")}` : "./";
}

export function writeState(state, isNewEntry) {
  const { picture, depth, scroll, count } = state;
  history[isNewEntry ? "pushState" : "replaceState"]({ picture, depth, scroll, count }, "", makeHref(state));
}

/** Parse the address of a picture of this server (`?show=`, `/v1/images/{id}/file`, …) into {id, collection} or null. */
export function parsePictureUrl(text) {
  let url;
  try {
    url = new URL(text.trim());
  } catch {
    return null;
  }
  const root = new URL(".", document.baseURI);
  if (url.origin !== root.origin || !url.pathname.startsWith(root.pathname)) return null;
  const id = url.searchParams.get("show") ?? url.pathname.match(/\/v1\/images\/([^/]+)(\/(file|thumbnail))?$/)?.[1];
  const collection = url.searchParams.get("collection") ?? homeCollection();
  return id && ID.test(id) && COLLECTION_NAME.test(collection) ? { id, collection } : null;
}

function readIds(text) {
  const ids = (text ?? "").split(",").filter((id) => ID.test(id));
  return [...new Set(ids)].slice(0, MAX_LIKE);
}

function parseWeight(text) {
  const value = Number(text);
  return text && value >= 0.1 && value <= 0.9 ? Math.round(value * 20) / 20 : EQUAL_WEIGHT;
}
