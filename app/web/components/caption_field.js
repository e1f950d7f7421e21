// The caption of a picture, written in place: saved when the user leaves the field or presses Ctrl+Enter; Escape takes a
// change back that is not saved. What the server does not have yet is kept as a draft, so that nothing the user wrote is lost.

import { updateImage } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { make } from "./dom.js";
import { toast } from "./toast.js";

const drafts = new Map(); // "collection/id" -> {image, text}

window.addEventListener("pagehide", () => {
  for (const { image, text } of drafts.values()) {
    updateImage(image.id, { caption: text.trim() || null }, image.collection, { keepalive: true }).catch(() => {});
  }
});

/**
 * Gives {element, save, set(text), isChanged}; `save()` resolves to whether nothing is left to save. `onChange(image)` gets the changed record;
 * `onReturn(image)` runs if the caption was refused after the user has left the picture, and wants to go back.
 */
export function makeCaptionField(image, { onChange, onReturn }) {
  const key = `${image.collection}/${image.id}`;
  const label = translate("caption_add");
  const field = make("textarea", { className: "caption-field", rows: 1, dir: "auto", placeholder: label });
  const alert = make("p", { className: "error", role: "alert", hidden: true });
  const element = make("div", {}, field, alert);
  let saved = image.caption ?? "";
  let saving = null;
  let sending = null; // the text that is on its way
  field.ariaLabel = translate("caption");
  field.value = drafts.get(key)?.text ?? saved;

  const send = async (text) => {
    sending = text;
    try {
      const changed = await updateImage(image.id, { caption: text || null }, image.collection);
      saved = text;
      alert.hidden = true;
      if (drafts.get(key)?.text.trim() === text) drafts.delete(key);
      onChange(changed);
      return true;
    } catch (problem) {
      alert.textContent = translate("caption_not_saved", { detail: describeError(problem) });
      alert.hidden = false;
      if (!element.checkVisibility()) toast(alert.textContent, { action: "show_picture", onAction: () => onReturn(image) });
      return false;
    } finally {
      sending = null;
    }
  };
  const save = () => {
    const text = (drafts.get(key)?.text ?? saved).trim();
    if (text === saved) drafts.delete(key);
    if (!drafts.has(key)) return saving ?? Promise.resolve(true);
    saving = Promise.resolve(saving).then(() => (text === saved ? true : send(text)));
    return saving;
  };
  field.addEventListener("input", () => drafts.set(key, { image, text: field.value }));
  field.addEventListener("blur", save);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    if (event.key !== "Escape" || !drafts.has(key) || field.value.trim() === sending) return;
    event.preventDefault(); // keeps the dialog open
    drafts.delete(key);
    field.value = saved;
    alert.hidden = true;
  });
  const set = (text) => {
    field.value = text;
    drafts.set(key, { image, text });
    return save();
  };
  return { element, save, set, isChanged: () => drafts.has(key) };
}
