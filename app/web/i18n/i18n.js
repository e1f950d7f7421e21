// Translates the texts of the page, and writes numbers, dates, sizes and lists in the chosen language.
// The texts themselves are in english.js and chinese.js.

import { CHINESE } from "./chinese.js";
import { ENGLISH } from "./english.js";
import { REASONS } from "./reasons.js";

const STORAGE_KEY = "sightline.language";
const LANGUAGES = { en: ENGLISH, zh: CHINESE };
const TOUCH = matchMedia("(hover: none)"); // such a device cannot drop files
const NARROW = matchMedia("(hover: none), (max-width: 820px)");
let language = readStoredLanguage() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export function currentLanguage() {
  return language;
}

export function translate(key, values = {}) {
  const texts = LANGUAGES[language];
  const text = (TOUCH.matches && texts[`${key}_touch`]) || texts[key];
  return text.replace(/\{(\w+)\}/g, (placeholder, name) => {
    const value = values[name];
    return typeof value === "number" ? value.toLocaleString(language) : String(value ?? placeholder);
  });
}

/** Translate a text about `n` things, in the singular if `n` is 1. */
export function translateCount(key, n, values = {}) {
  return translate(n === 1 ? `${key}_one` : key, { n, ...values });
}

/** What an error or a warning of the server, {code, detail}, says, or that the server does not answer. */
export function describeError(problem) {
  const { code, detail } = problem ?? {};
  if (!detail) return translate("no_answer");
  const { details, codes } = REASONS[language];
  const [pattern, text] = details.find(([one]) => one.test(detail)) ?? [];
  return pattern ? detail.replace(pattern, text) : (codes[code]?.replace("{detail}", () => detail) ?? detail);
}

export function formatList(items) {
  return new Intl.ListFormat(language).format(items);
}

export function formatDate(text) {
  return new Date(text).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

/** The time on the camera's clock, which is not converted to the time of the reader, and its offset if it has one. */
export function formatWallTime(text) {
  const [, wall, offset] = text.match(/^(.{19})[^Z+-]*(.*)$/);
  const time = new Date(`${wall}Z`).toLocaleString(language, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
  return offset ? `${time} (UTC${offset === "+00:00" ? "" : offset})` : time;
}

/** From one day to another (2026-01-31), both included; null: open. */
export function formatDays(from, to) {
  const format = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" });
  if (from && to) return format.formatRange(new Date(from), new Date(to));
  return from ? translate("filtered_from", { value: format.format(new Date(from)) }) : translate("filtered_to", { value: format.format(new Date(to)) });
}

export function formatTimeLeft(seconds) {
  if (seconds < 100) return translate("seconds_left", { n: Math.round(seconds) });
  if (seconds < 5400) return translate("minutes_left", { n: Math.round(seconds / 60) });
  return translate("hours_left", { n: Math.round(seconds / 3600) });
}

export function formatDuration(seconds) {
  if (seconds < 100) return translate("seconds_n", { n: Math.max(1, Math.round(seconds)) });
  if (seconds < 5400) return translate("minutes_n", { n: Math.round(seconds / 60) });
  return translate("hours_n", { n: Math.round(seconds / 3600) });
}

export function formatBytes(n) {
  const [value, unit] = n < 1e6 ? [n / 1e3, "kB"] : n < 1e9 ? [n / 1e6, "MB"] : [n / 1e9, "GB"];
  return `${value.toLocaleString(language, { maximumFractionDigits: value < 10 ? 1 : 0 })} ${unit}`;
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  try {
    localStorage.setItem(STORAGE_KEY, language);
  } catch {
    // a browser without storage changes the language of this page only
  }
}

/** Write the translated texts into the elements that name them in `data-text`, `data-label` or `data-placeholder`. */
export function translateElements(root = document) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = translate(element.dataset.text);
  for (const element of root.querySelectorAll("[data-placeholder]")) {
    const key = element.dataset.placeholder;
    const short = `${key}_short`;
    element.placeholder = translate(NARROW.matches && short in LANGUAGES[language] ? short : key);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.ariaLabel = translate(element.dataset.label);
    if (element.localName === "button") element.title = element.ariaLabel;
  }
}

NARROW.addEventListener("change", () => translateElements(document.getElementById("search")));

function readStoredLanguage() {
  try {
    const stored = localStorage.getItem(STORAGE_KEY);
    return stored in LANGUAGES ? stored : null;
  } catch {
    return null;
  }
}
