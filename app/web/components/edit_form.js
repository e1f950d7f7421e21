// The form that edits a picture's caption and tags. Each tag is an element of its own, so that it may contain a comma.
// `onEnd(image)` gets the changed record, or null if the user cancels.

import { updateImage } from "../api/client.js";
import { translate } from "../i18n/i18n.js";
import { make, makeButton } from "./dom.js";
import { makeForm, makeLabel } from "./form.js";

export function makeEditForm(image, onEnd) {
  const caption = make("textarea", { rows: 3, value: image.caption ?? "", dir: "auto" });
  const { field, readTags } = makeTagField(image.tags);
  const title = make("h2", { className: "visually-hidden" }, translate("edit"));
  const form = makeForm([title, makeLabel(translate("caption"), caption), field], {
    label: translate("save"),
    cancel: () => onEnd(null),
    submit: async () => {
      const change = { caption: caption.value.trim() || null, tags: readTags() };
      onEnd(await updateImage(image.id, change, image.collection));
    },
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return form;
}

function makeTagField(tags) {
  const list = make("ul", { className: "tags" });
  const hint = translate("add_tag");
  const input = make("input", { type: "text", dir: "auto", placeholder: hint, ariaLabel: hint });
  const listTags = () => [...list.children].map((one) => one.dataset.tag);
  const addTag = (tag) => {
    if (!tag || listTags().includes(tag)) return;
    const remove = makeButton("", "×", { ariaLabel: translate("remove_tag", { tag }) });
    const item = make("li", {}, make("span", { dir: "auto" }, tag), remove);
    item.dataset.tag = tag;
    remove.addEventListener("click", () => {
      item.remove();
      input.focus();
    });
    list.append(item);
  };
  const takeInput = () => {
    addTag(input.value.trim());
    input.value = "";
  };
  tags.forEach(addTag);
  input.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" && !event.ctrlKey && !event.metaKey) || event.key === "," || event.key === "，") {
      if (event.isComposing || (event.key === "Enter" && !input.value.trim())) return;
      event.preventDefault();
      takeInput();
    } else if (event.key === "Backspace" && !input.value) list.lastElementChild?.remove();
  });
  const field = make("fieldset", {}, make("legend", {}, translate("tags")), list, input);
  return { field, readTags: () => (takeInput(), listTags()) };
}
