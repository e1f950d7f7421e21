// What the page shows, as its address: `?collection=&q=&target=&like=&weight=&tag=&format=&from=&to=&meta=&show=&view=`, so that Back
// works and a search can be sent on. A dropped picture has no address; it is kept here under a number that the history entry remembers.

import { applying, filterOf, readFilter } from "./filter.js";
import { DEFAULT, here, homeOf, NAME } from "./collection_context.js";
import { ID } from "../api/client.js";

export const EVEN = 0.5; // the pictures' share of a search that has words too
export const MOST_LIKE = 16;
const dropped = new Map();
const anew = performance.getEntriesByType("navigation")[0]?.type === "navigate"; // and wants no picture of before

export function remember(file) {
  const number = performance.timeOrigin + dropped.size; // no other load of the page gives the same
  dropped.set(number, file);
  return number;
}

export function readState() {
  const asked = new URLSearchParams(location.search);
  const kept = history.state ?? {};
  const number = kept.picture ?? null;
  const like = (asked.get("like") ?? "").split(",").filter((id) => ID.test(id));
  const collection = asked.get("collection") ?? "";
  return {
    collection: NAME.test(collection) ? collection : homeOf(),
    q: asked.get("q") ?? "",
    target: asked.get("target") === "texts" ? "texts" : "images",
    like: [...new Set(like)].slice(0, MOST_LIKE),
    weight: share(asked.get("weight")),
    only: readFilter(asked),
    show: asked.get("show") || null,
    view: asked.get("view") === "jobs" ? "jobs" : "results",
    picture: dropped.has(number) ? number : null,
    lost: number !== null && !dropped.has(number) && !anew,
    opened: kept.opened ?? false,
    scroll: kept.scroll ?? 0,
    count: kept.count ?? 0,
  };
}

export function queryOf(state) {
  const file = state.picture ? dropped.get(state.picture) : null;
  const filter = filterOf(state.only, state.target);
  return { q: state.q.trim(), like: state.like, file, target: state.target, weight: state.weight, filter };
}

export function keyOf(state) {
  const mixed = state.q.trim() && (state.like.length || state.picture);
  const only = applying(state.only, state.target);
  const { collection } = state;
  return JSON.stringify([collection, state.q.trim(), state.target, state.like, state.picture, mixed ? state.weight : EVEN, only]);
}

export function hrefOf(state) {
  const said = new URLSearchParams();
  const collection = state.collection ?? here();
  if (collection !== DEFAULT) said.set("collection", collection);
  if (state.q?.trim()) said.set("q", state.q);
  if (state.target === "texts") said.set("target", state.target);
  if (state.like?.length) said.set("like", state.like.join(","));
  if ((state.weight ?? EVEN) !== EVEN) said.set("weight", state.weight);
  for (const [kind, value] of state.only ?? []) said.append(kind, value);
  if (state.view === "jobs") said.set("view", "jobs");
  if (state.show) said.set("show", state.show);
  return said.size ? `?${said.toString().replaceAll("%2C", ",")}` : "./";
}

export function writeState(state, push) {
  const { picture, opened, scroll, count } = state;
  history[push ? "pushState" : "replaceState"]({ picture, opened, scroll, count }, "", hrefOf(state));
}

/** One of our pictures that an address names, as {id, collection}, or null: `?show=`, `/v1/images/{id}/file` and the like. */
export function pictureOf(text) {
  let url;
  try {
    url = new URL(text.trim());
  } catch {
    return null;
  }
  const root = new URL(".", document.baseURI);
  if (url.origin !== root.origin || !url.pathname.startsWith(root.pathname)) return null;
  const id = url.searchParams.get("show") ?? url.pathname.match(/\/v1\/images\/([^/]+)(\/(file|thumbnail))?$/)?.[1];
  const collection = url.searchParams.get("collection") ?? homeOf();
  return id && ID.test(id) && NAME.test(collection) ? { id, collection } : null;
}

function share(text) {
  const value = Number(text);
  return text && value >= 0.1 && value <= 0.9 ? Math.round(value * 20) / 20 : EVEN;
}
