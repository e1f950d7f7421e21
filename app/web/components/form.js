// Forms that send something to the server. The button is disabled during the request, and a refusal appears in the
// form itself, so that nothing the user wrote is lost.

import { describeError, translate } from "../i18n/i18n.js";
import { make, makeButton } from "./dom.js";

/** Run `submit()` when the user submits `form`, and show in its alert why it failed. Both are part of the form. */
export function handleSubmit(form, submit) {
  const button = form.querySelector("button:not([type=button])");
  const alert = form.querySelector("[role=alert]");
  form.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    alert.hidden = true;
    try {
      await submit();
    } catch (problem) {
      alert.textContent = describeError(problem);
      alert.hidden = false;
    }
    button.disabled = false;
  };
}

/** Create a form of `fields`. With `cancel` it has a cancel button, and Escape cancels it. */
export function makeForm(fields, { label, submit, cancel = null, className = "form" }) {
  const button = make("button", { type: "submit", className: "button" }, label);
  const cancelButton = cancel && makeButton("button plain", translate("cancel"));
  const alert = make("p", { className: "error", role: "alert", hidden: true });
  const buttons = make("div", { className: "buttons" }, button, cancelButton);
  const form = make("form", { className }, ...fields, alert, buttons);
  cancelButton?.addEventListener("click", cancel);
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !cancel) return;
    event.preventDefault(); // keeps the dialog around the form open
    cancel();
  });
  handleSubmit(form, submit);
  return form;
}

export function makeLabel(text, field) {
  return make("label", {}, make("span", {}, text), field);
}
