// The choice between the languages of the interface, and how numbers, dates and sizes are written in it.
// The words themselves stand in english.js and chinese.js.

import { CHINESE } from "./chinese.js";
import { ENGLISH } from "./english.js";

const KEPT = "sightline.language";
const LANGUAGES = { en: ENGLISH, zh: CHINESE };
const TOUCH = matchMedia("(hover: none)"); // nothing can be dropped there
const SHORT = matchMedia("(hover: none), (max-width: 480px)");
let chosen = kept() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export function words(key, values = {}) {
  const table = LANGUAGES[chosen];
  const text = (TOUCH.matches && table[`${key}_touch`]) || table[key];
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return typeof value === "number" ? value.toLocaleString(chosen) : String(value ?? whole);
  });
}

/** Several things in a row, as the language joins them. */
export function listed(all) {
  return new Intl.ListFormat(chosen).format(all);
}

/** Words for a number of things: the singular where there is one. */
export function counted(key, n, values = {}) {
  return words(n === 1 ? `${key}_one` : key, { n, ...values });
}

export function date(text) {
  return new Date(text).toLocaleString(chosen, { dateStyle: "medium", timeStyle: "short" });
}

/** How long something will take, in the unit that says enough. */
export function left(seconds) {
  if (seconds < 100) return words("eta", { s: Math.round(seconds) });
  if (seconds < 5400) return words("eta_minutes", { n: Math.round(seconds / 60) });
  return words("eta_hours", { n: Math.round(seconds / 3600) });
}

export function bytes(n) {
  const step = n < 1e6 ? [n / 1e3, "kB"] : n < 1e9 ? [n / 1e6, "MB"] : [n / 1e9, "GB"];
  return `${step[0].toLocaleString(chosen, { maximumFractionDigits: step[0] < 10 ? 1 : 0 })} ${step[1]}`;
}

export function switchLanguage() {
  chosen = chosen === "en" ? "zh" : "en";
  try {
    localStorage.setItem(KEPT, chosen);
  } catch {
    // a browser that keeps nothing still shows the other language now
  }
}

export function fillWords(root = document) {
  document.documentElement.lang = chosen;
  for (const element of root.querySelectorAll("[data-words]")) element.textContent = words(element.dataset.words);
  for (const element of root.querySelectorAll("[data-placeholder]")) {
    const key = element.dataset.placeholder;
    const short = `${key}_short`;
    element.placeholder = words(SHORT.matches && short in LANGUAGES[chosen] ? short : key);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.ariaLabel = words(element.dataset.label);
    if (element.localName === "button") element.title = element.ariaLabel;
  }
}

SHORT.addEventListener("change", () => fillWords(document.getElementById("search")));

function kept() {
  try {
    const value = localStorage.getItem(KEPT);
    return value in LANGUAGES ? value : null;
  } catch {
    return null;
  }
}
