// The dialog that edits the filter, and the chips that show its conditions above the results.
// A press on a chip removes its condition.

import { translate } from "../i18n/i18n.js";
import { readFilter, selectApplicable, SINGLE_KINDS } from "../state/filter.js";
import { getJobName } from "../state/own_jobs.js";
import { byId, make } from "./dom.js";
import { watchSuggestions } from "./suggestions.js";

const FIELDS = [...SINGLE_KINDS, "tag"];

/** `getState()` gives the state of the page, `onChange(conditions)` takes the new conditions. */
export function watchFilter({ getState, onChange }) {
  const dialog = byId("filter-dialog");
  const form = dialog.querySelector("form");
  const { name, value, from, to } = form.elements;
  let shown = []; // the conditions that the fields began with, which they replace
  const requireBoth = () => {
    value.required = Boolean(name.value.trim());
    name.required = Boolean(value.value.trim());
    to.setCustomValidity(from.value && to.value && to.value < from.value ? translate("filter_days") : "");
  };
  form.addEventListener("input", requireBoth);
  watchSuggestions(name);
  byId("filter").addEventListener("click", () => {
    const { conditions, target } = getState();
    form.reset();
    shown = FIELDS.map((kind) => conditions.find(([one]) => one === kind)).filter(Boolean);
    for (const kind of FIELDS) form.elements[kind].value = shown.find(([one]) => one === kind)?.[1] ?? "";
    for (const label of form.querySelectorAll("[data-pictures]")) label.hidden = target !== "images";
    requireBoth();
    dialog.showModal();
  });
  form.addEventListener("submit", () => {
    const kept = getState().conditions.filter((condition) => !shown.includes(condition));
    const parameters = new URLSearchParams(kept);
    for (const kind of FIELDS) if (form.elements[kind].value) parameters.append(kind, form.elements[kind].value);
    if (name.value.trim()) parameters.append("meta", `${name.value.trim()}=${value.value.trim()}`);
    onChange(readFilter(parameters));
  });
  byId("filters").addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (!chip) return;
    onChange(getState().conditions.filter((condition) => condition.join(" ") !== chip.dataset.condition));
    (byId("filters").querySelector("button") ?? byId("filter")).focus();
  });
}

export function showFilter(conditions, target) {
  const chips = selectApplicable(conditions, target);
  byId("filters").hidden = !chips.length;
  byId("filters").replaceChildren(...chips.map((condition) => make("li", {}, makeChip(condition))));
}

function makeChip(condition) {
  const [kind, value] = condition;
  const name = kind === "job" ? getJobName(value.split(",")[0]) : value;
  const text = name ? translate(`filtered_${kind}`, { value: name }) : translate("one_import");
  const label = translate("filter_remove", { filter: text });
  const chip = make("button", { type: "button", title: label, ariaLabel: label }, make("bdi", {}, text), " ×");
  chip.dataset.condition = condition.join(" ");
  return chip;
}
