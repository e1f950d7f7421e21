// The tags of a picture: each searches for the pictures that have it, and can be removed. The auto-tags follow, marked.
// A field adds more, in place.

import { rejectTag, updateTags } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { makeHref } from "../state/url_state.js";
import { make, makeButton } from "./dom.js";
import { toast } from "./toast.js";

/** Gives {element, add(tag), save, isChanged}; `onChange(image)` gets the changed record. */
export function makeTagField(image, { canEdit, onChange }) {
  const list = make("ul", { className: "tags", ariaLabel: translate("tags") });
  const input = make("input", { type: "text", dir: "auto", maxLength: 100, placeholder: translate("add_tag"), ariaLabel: translate("add_tag") });
  input.setAttribute("list", "known-tags");
  const alert = make("p", { className: "error", role: "alert", hidden: true });
  const element = make("div", { className: "tag-field" }, list, alert);
  let changing = Promise.resolve(true); // one change after the other

  const makeAutoTag = ({ tag, probability }) => {
    const title = translate("auto_tag", { tag, percent: Math.round(100 * probability) });
    const link = make("a", { className: "to-results", href: makeHref({ conditions: [["auto", tag]] }), dir: "auto", title, ariaLabel: title }, tag);
    const remove = makeButton("", "×", { ariaLabel: translate("reject_tag", { tag }), title: translate("reject_tag", { tag }) });
    remove.addEventListener("click", () => run(() => rejectTag(image.id, tag, image.collection), true));
    return make("li", { className: "auto" }, link, canEdit ? remove : null);
  };
  const show = ({ tags, auto_tags: autoTags = [] }) => {
    const items = tags.map((tag) => {
      const link = make("a", { className: "to-results", href: makeHref({ conditions: [["tag", tag]] }), dir: "auto", title: translate("show_tag", { tag }) }, tag);
      const remove = makeButton("", "×", { ariaLabel: translate("remove_tag", { tag }), title: translate("remove_tag", { tag }) });
      remove.addEventListener("click", () => change((all) => all.filter((one) => one !== tag), true));
      return make("li", {}, link, canEdit ? remove : null);
    });
    const hadFocus = input === document.activeElement;
    const automatic = autoTags.filter(({ tag }) => !tags.includes(tag)).map(makeAutoTag);
    list.replaceChildren(...items, ...automatic, ...(canEdit ? [make("li", { className: "add" }, input)] : []));
    if (hadFocus) input.focus();
    element.hidden = !list.childElementCount;
  };
  const change = (edit, isRemoval = false) => run(() => updateTags(image.id, edit, image.collection), isRemoval);
  const run = (request, isRemoval) => {
    changing = changing.then(async () => {
      try {
        const changed = await request();
        alert.hidden = true;
        show(changed);
        if (isRemoval) input.focus();
        onChange(changed);
        return true;
      } catch (problem) {
        alert.textContent = translate("not_done", { detail: describeError(problem) });
        alert.hidden = false;
        if (!element.checkVisibility()) toast(alert.textContent);
        return false;
      }
    });
    return changing;
  };
  const add = (tag) => change((all) => (all.includes(tag) ? all : [...all, tag]));
  const save = async () => {
    const tag = input.value.trim();
    if (!tag) return changing;
    input.value = "";
    const isAdded = await add(tag);
    if (!isAdded) input.value ||= tag;
    return isAdded;
  };
  input.addEventListener("blur", save);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && input.value) input.value = "";
    else if (["Enter", ",", "，"].includes(event.key) && input.value.trim()) save();
    else if (!["Enter", ","].includes(event.key)) return;
    event.preventDefault();
  });
  show(image);
  return { element, add, save, isChanged: () => Boolean(input.value.trim()) };
}
