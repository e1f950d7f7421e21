// Files that the user drops, pastes or chooses: one picture to search with, or files to add.
// During a drag, zones say what a drop does. The user can also drag a picture of the results onto the search box.

import { hasScope } from "../api/session.js";
import { parsePictureUrl } from "../state/url_state.js";
import { byId } from "./dom.js";
import { isArchive, isVideo, listDroppedFiles, listFiles } from "./files.js";

const ARCHIVE_TYPE = /zip|tar|compressed/;
let isOwnDrag = false; // the drag started on this page

/** `addsOnly()`: whether the page has nothing to search, so that every drop adds. */
export function watchDrops({ onSearch, onPicture, onAdd, addsOnly }) {
  watchFileDrops({ onSearch, onAdd, addsOnly });
  watchPictureDrops(onPicture);
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    onSearch(file);
  });
  watchFileButton("by-picture", "picture-file", (files) => onSearch(files[0]));
  watchFileButton("add-files", "files", (files) => onAdd(listFiles(files)));
  watchFileButton("add-photo", "photo", (files) => onAdd(listFiles(files)));
  watchFileButton("add-folder", "folder", (files) => onAdd(listFiles(files)));
}

function watchFileDrops({ onSearch, onAdd, addsOnly }) {
  const zones = byId("drop-zones");
  const isAddOnly = () => byId("add-dialog").open || addsOnly();
  const hasFiles = (event) => !isOwnDrag && event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    const items = [...event.dataTransfer.items];
    const isPicture = items.length === 1 && items[0].type && !ARCHIVE_TYPE.test(items[0].type); // a folder has no type
    const host = document.querySelector("dialog[open]") ?? document.body; // an open dialog disables all around it
    if (zones.parentElement !== host) host.append(zones);
    zones.dataset.only = !hasScope("write") ? "search" : isPicture && !isAddOnly() ? "" : "add";
    zones.hidden = false;
  });
  window.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    const target = event.target.closest?.("[data-zone]");
    for (const zone of zones.children) zone.classList.toggle("over", zone === target);
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zones.hidden = true;
  });
  window.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    zones.hidden = true;
    const zone = hasScope("write") && isAddOnly() ? "add" : event.target.closest?.("[data-zone]")?.dataset.zone;
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); // the results are behind it
    const [first, ...others] = event.dataTransfer.files;
    const files = await listDroppedFiles(event.dataTransfer);
    const isSingle = first && !others.length && files.items.length === 1 && files.items[0].file.name === first.name;
    if (!hasScope("write") || (isSingle && zone !== "add" && !isArchive(first) && !isVideo(first))) onSearch(first);
    else onAdd(files);
  });
}

function watchPictureDrops(onPicture) {
  const form = byId("search");
  document.addEventListener("dragstart", () => (isOwnDrag = true));
  document.addEventListener("dragend", () => (isOwnDrag = false));
  document.addEventListener("pointermove", () => (isOwnDrag = false), { passive: true }); // never fires during a drag
  form.addEventListener("dragover", (event) => isOwnDrag && event.preventDefault());
  form.addEventListener("drop", (event) => {
    const picture = parsePictureUrl(event.dataTransfer.getData("text/uri-list").split("\n")[0]);
    if (!picture) return;
    event.preventDefault();
    isOwnDrag = false;
    onPicture(picture);
  });
}

function watchFileButton(button, input, onFiles) {
  const field = byId(input);
  byId(button).addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    const files = [...field.files];
    field.value = "";
    byId("add-dialog").close();
    if (files.length) onFiles(files);
  });
}
