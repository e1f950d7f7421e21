// The form that changes a picture's caption and tags. Each tag is a piece of its own, so that it may hold a comma.
// `ended(image)` is told the changed record, or null when nothing was changed.

import { make } from "./dom.js";
import { changeImage } from "../api/client.js";
import { words } from "../i18n/i18n.js";

export function editor(image, ended) {
  const caption = make("textarea", { rows: 3, value: image.caption ?? "", dir: "auto" });
  const tags = tagField(image.tags);
  const said = make("p", { className: "bad", role: "alert", hidden: true });
  const save = make("button", { type: "submit", className: "button" }, words("save"));
  const cancel = make("button", { type: "button", className: "button plain" }, words("cancel"));
  const form = make(
    "form",
    { className: "edit" },
    make("h2", { className: "unseen" }, words("edit")),
    make("label", {}, make("span", {}, words("caption")), caption),
    tags.field,
    said,
    make("div", { className: "acts" }, save, cancel),
  );
  cancel.addEventListener("click", () => ended(null));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.preventDefault(); // of the dialog, which stays
      ended(null);
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    save.disabled = true;
    try {
      ended(await changeImage(image.id, { caption: caption.value.trim() || null, tags: tags.all() }, image.collection));
    } catch (problem) {
      save.disabled = false;
      said.textContent = problem.detail || words("away_short");
      said.hidden = false;
    }
  });
  return form;
}

function tagField(given) {
  const list = make("ul", { className: "tags" });
  const box = make("input", { type: "text", dir: "auto", placeholder: words("add_tag") });
  box.ariaLabel = words("add_tag");
  const all = () => [...list.children].map((one) => one.dataset.tag);
  const add = (tag) => {
    if (!tag || all().includes(tag)) return;
    const away = make("button", { type: "button", ariaLabel: words("remove_tag", { tag }) }, "×");
    const piece = make("li", {}, make("span", { dir: "auto" }, tag), away);
    piece.dataset.tag = tag;
    away.addEventListener("click", () => {
      piece.remove();
      box.focus();
    });
    list.append(piece);
  };
  const take = () => {
    add(box.value.trim());
    box.value = "";
  };
  given.forEach(add);
  box.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" && !event.ctrlKey && !event.metaKey) || event.key === "," || event.key === "，") {
      if (event.isComposing || (event.key === "Enter" && !box.value.trim())) return;
      event.preventDefault();
      take();
    } else if (event.key === "Backspace" && !box.value) list.lastElementChild?.remove();
  });
  const legend = make("legend", {}, words("tags"));
  return { field: make("fieldset", {}, legend, list, box), all: () => (take(), all()) };
}
