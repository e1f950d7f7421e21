// Files that come by drag and drop, by paste or by a file button, told apart: one picture to search by, or files to add.
// While something is dragged over the page two zones say what will happen.

import { byId } from "./element.js";

const ARCHIVE = /zip|tar|compressed/;
const ARCHIVE_NAME = /\.(zip|tar|tgz|gz)$/i;

export function watchDrops({ searched, added }) {
  const cover = byId("drop");
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    const items = [...event.dataTransfer.items];
    cover.dataset.only = items.length === 1 && !ARCHIVE.test(items[0].type) ? "" : "add";
    cover.hidden = false;
  });
  window.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    const over = event.target.closest?.("[data-zone]");
    for (const zone of cover.children) zone.classList.toggle("over", zone === over);
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) cover.hidden = true;
  });
  window.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    cover.hidden = true;
    const files = [...event.dataTransfer.files];
    const zone = event.target.closest?.("[data-zone]")?.dataset.zone;
    if (!files.length) return;
    if (zone === "add" || files.length > 1 || ARCHIVE_NAME.test(files[0].name)) added(files);
    else searched(files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    searched(file);
  });
  pick("by-picture", "picture-file", (files) => searched(files[0]));
  pick("add", "add-files", added);
}

function pick(button, input, taken) {
  const field = byId(input);
  byId(button).addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    const files = [...field.files];
    field.value = "";
    if (files.length) taken(files);
  });
}
