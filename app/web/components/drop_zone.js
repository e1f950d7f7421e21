// Files that come by drag and drop, by paste or by a file button, told apart: one picture to search by, or files to add.
// While something is dragged over the page zones say what will happen: one, where all there is to do is to add. A tile can
// be dragged onto the search box.

import { pictureOf } from "../state/url_state.js";
import { byId } from "./dom.js";
import { isArchive, ofDrop, ofFiles } from "./files.js";

const ARCHIVE = /zip|tar|compressed/;
let inside = false; // whether what is dragged comes from this page

export function watchDrops({ searched, pictured, added, adds }) {
  watchFiles({ searched, added, adds });
  watchTiles(pictured);
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    searched(file);
  });
  pick("by-picture", "picture-file", (files) => searched(files[0]));
  pick("add-files", "files", (files) => added(ofFiles(files)));
  pick("add-folder", "folder", (files) => added(ofFiles(files)));
}

function watchFiles({ searched, added, adds }) {
  const cover = byId("drop");
  const addsAll = () => byId("adding").open || adds();
  const carries = (event) => !inside && event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    const items = [...event.dataTransfer.items];
    const one = items.length === 1 && items[0].type && !ARCHIVE.test(items[0].type); // a folder has no type
    const host = document.querySelector("dialog[open]") ?? document.body; // what lies outside an open dialog is dead
    if (cover.parentElement !== host) host.append(cover);
    cover.dataset.only = one && !addsAll() ? "" : "add";
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
  window.addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    cover.hidden = true;
    const zone = addsAll() ? "add" : event.target.closest?.("[data-zone]")?.dataset.zone;
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); // what comes of it shows behind
    const [first, ...others] = event.dataTransfer.files;
    const gathered = await ofDrop(event.dataTransfer);
    const single = first && !others.length && gathered.items.length === 1 && gathered.items[0].file.name === first.name;
    if (single && zone !== "add" && !isArchive(first)) searched(first);
    else added(gathered);
  });
}

function watchTiles(pictured) {
  const form = byId("search");
  document.addEventListener("dragstart", () => (inside = true));
  document.addEventListener("dragend", () => (inside = false));
  document.addEventListener("pointermove", () => (inside = false), { passive: true }); // none while dragging
  form.addEventListener("dragover", (event) => inside && event.preventDefault());
  form.addEventListener("drop", (event) => {
    const picture = pictureOf(event.dataTransfer.getData("text/uri-list").split("\n")[0]);
    if (!picture) return;
    event.preventDefault();
    inside = false;
    pictured(picture);
  });
}

function pick(button, input, taken) {
  const field = byId(input);
  byId(button).addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    const files = [...field.files];
    field.value = "";
    byId("adding").close();
    if (files.length) taken(files);
  });
}
