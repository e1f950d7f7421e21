// Lists the files of a drop or of a file button. From folders it takes pictures, videos, the texts beside them and archives, and
// no hidden files. Gives {items, skipped}; an item is {file, name, isArchive, isSidecar}, whose name contains the path inside
// the folder; `skipped` counts the others by their suffix.

import { byId } from "./dom.js";

const SUFFIXES = byId("picture-file").accept.split(",").filter((one) => one.startsWith(".")); // of the formats that the server accepts
const PICTURE = new RegExp(`(${SUFFIXES.map((one) => `\\${one}`).join("|")})$`, "i");
const VIDEO = /\.(mp4|m4v|mov|qt|webm|mkv)$/i;
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;
const SIDECAR = /\.(txt|json)$/i; // its caption, or its metadata

export function isArchive(file) {
  return ARCHIVE.test(file.name);
}

export function isVideo(file) {
  return VIDEO.test(file.name);
}

/** Call this in the drop event itself, because the browser empties `transfer` afterwards. */
export async function listDroppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.kind === "file" && item.webkitGetAsEntry?.());
  const files = [...transfer.files];
  if (!entries.some((entry) => entry?.isDirectory)) return listFiles(files);
  const found = [];
  for (const entry of entries) if (entry) await walkEntry(entry, "", found);
  return selectUsable(found);
}

export function listFiles(files) {
  const found = files.map((file) => ({ file, name: file.webkitRelativePath || file.name }));
  if (found.some(({ file }) => file.webkitRelativePath)) return selectUsable(found);
  return { items: found.map(makeItem), skipped: {} }; // the user chose each file, so the server says what is wrong with it
}

async function walkEntry(entry, path, found) {
  const name = path + entry.name;
  if (entry.isFile) {
    found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 entries
    if (!batch.length) return;
    for (const child of batch) await walkEntry(child, `${name}/`, found);
  }
}

function selectUsable(found) {
  const isHidden = (name) => name.split("/").some((part) => part.startsWith("."));
  const shown = found.filter(({ name }) => !isHidden(name));
  const stems = new Set(shown.filter(({ name }) => isMedia(name)).map(({ name }) => stemOf(name)));
  const isUsable = ({ name }) => isMedia(name) || ARCHIVE.test(name) || (SIDECAR.test(name) && stems.has(stemOf(name)));
  const items = shown.filter(isUsable).map(makeItem);
  items.sort((a, b) => compare(stemOf(a.name), stemOf(b.name)) || a.isSidecar - b.isSidecar || compare(a.name, b.name));
  const skipped = {};
  for (const { name } of shown.filter((one) => !isUsable(one))) {
    const suffix = /[^/](\.[^./]+)$/.exec(name)?.[1].toLowerCase() ?? "";
    skipped[suffix] = (skipped[suffix] ?? 0) + 1;
  }
  return { items, skipped };
}

function isMedia(name) {
  return PICTURE.test(name) || VIDEO.test(name);
}

/** What a picture and the text beside it have in common: "trip/cat" of "trip/cat.jpg", "trip/cat.txt" and "trip/cat.jpg.json". */
function stemOf(name) {
  return name.replace(SIDECAR, "").replace(PICTURE, "").replace(VIDEO, "");
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function makeItem({ file, name }) {
  return { file, name, isArchive: isArchive(file), isSidecar: SIDECAR.test(name) };
}
