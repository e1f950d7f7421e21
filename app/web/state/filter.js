// The filter: what a small dialog asks for, chips that say it, its place in the address, and the JSON that the server takes.
// It is kept as pairs: ["tag", "red"], ["format", "png"], ["from", "2026-01-31"], ["to", ...], ["meta", "camera=X100"].

import { byId, make } from "../components/dom.js";
import { words } from "../i18n/i18n.js";

const KINDS = ["tag", "format", "from", "to", "meta"];
const OF_PICTURES = ["tag", "format"];
const ONCE = ["format", "from", "to"];
const FORMATS = ["avif", "gif", "jpeg", "png", "webp"];
const CHIPS = {
  tag: "filtered_tag",
  format: "filtered_format",
  from: "filtered_from",
  to: "filtered_to",
  meta: "filtered_meta",
};
const MOST = 20;
const DAY = /^[1-9]\d{3}-\d\d-\d\d$/;

export function readFilter(asked) {
  const only = [];
  for (const kind of KINDS) {
    const all = asked.getAll(kind).map((value) => value.trim()).filter((value) => isOne(kind, value));
    for (const value of new Set(ONCE.includes(kind) ? all.slice(0, 1) : all)) only.push([kind, value]);
  }
  return only.slice(0, MOST);
}

function isOne(kind, value) {
  if (kind === "format") return FORMATS.includes(value);
  if (kind === "from" || kind === "to") return DAY.test(value) && !Number.isNaN(midnight(value).getTime());
  if (kind === "meta") return /^[^"\\=]+=./.test(value) && value.length <= 400;
  return value.length > 0 && value.length <= 100;
}

/** What applies to pictures, or to texts. */
export function applying(only, target) {
  return only.filter(([kind]) => target === "images" || !OF_PICTURES.includes(kind));
}

/** The filter as the server takes it, null for none. Days are those of this browser's clock. */
export function filterOf(only, target) {
  const must = applying(only, target).map(([kind, value]) => condition(kind, value));
  return must.length ? { must } : null;
}

function condition(kind, value) {
  if (kind === "tag") return { key: "tags", match: { value } };
  if (kind === "format") return { key: "format", match: { value } };
  if (kind === "from") return { key: "created_at", range: { gte: midnight(value).toISOString() } };
  if (kind === "to") return { key: "created_at", range: { lt: midnight(value, 1).toISOString() } };
  const at = value.indexOf("=");
  return { key: `metadata.${path(value.slice(0, at).trim())}`, match: { any: readings(value.slice(at + 1).trim()) } };
}

function midnight(day, later = 0) {
  const date = new Date(`${day}T00:00`);
  date.setDate(date.getDate() + later);
  return date;
}

/** A name with dots leads inside; each part stands in quotes, whatever signs it has. */
function path(name) {
  return name.split(".").map((part) => `"${part.trim()}"`).join(".");
}

/** What was typed may be meant as text, or as a number or truth. */
function readings(text) {
  const all = [text];
  if (/^-?\d+(\.\d+)?$/.test(text)) all.push(Number(text));
  if (text === "true" || text === "false") all.push(text === "true");
  return all;
}

/** `changed(only)` is told when the filter is changed. */
export function watchFilter({ current, changed }) {
  const dialog = byId("filtering");
  const form = dialog.querySelector("form");
  const { name, value } = form.elements; // neither is of use alone
  const both = () => {
    value.required = Boolean(name.value.trim());
    name.required = Boolean(value.value.trim());
  };
  form.addEventListener("input", both);
  byId("filter").addEventListener("click", () => {
    const { only, target } = current();
    form.reset();
    for (const kind of ONCE) form.elements[kind].value = only.find(([one]) => one === kind)?.[1] ?? "";
    for (const label of form.querySelectorAll("[data-pictures]")) label.hidden = target !== "images";
    both();
    dialog.showModal();
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", () => {
    const { only } = current();
    const said = new URLSearchParams(only.filter(([kind]) => !ONCE.includes(kind)));
    for (const kind of [...ONCE, "tag"]) if (form.elements[kind].value) said.append(kind, form.elements[kind].value);
    if (name.value.trim()) said.append("meta", `${name.value.trim()}=${value.value.trim()}`);
    changed(readFilter(said));
  });
  byId("filters").addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (!chip) return;
    changed(current().only.filter(([kind, value]) => `${kind} ${value}` !== chip.dataset.one));
    (byId("filters").querySelector("button") ?? byId("filter")).focus();
  });
}

export function showFilter(only, target) {
  const chips = applying(only, target);
  byId("filters").hidden = !chips.length;
  byId("filters").replaceChildren(...chips.map(([kind, value]) => make("li", {}, chipOf(kind, value))));
}

function chipOf(kind, value) {
  const text = words(CHIPS[kind], { value });
  const label = words("filter_remove", { filter: text });
  const chip = make("button", { type: "button", title: label, "aria-label": label }, make("bdi", {}, text), " ×");
  chip.dataset.one = `${kind} ${value}`;
  return chip;
}
