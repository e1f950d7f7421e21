// Lists the files of a drop or of a file button. From folders it takes only pictures and archives, and no hidden files.
// Gives {items, skipped}; an item is {file, name, isArchive}, whose name contains the path inside the folder.

const PICTURE = /\.(jpe?g|png|webp|gif|avif)$/i;
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;

export function isArchive(file) {
  return ARCHIVE.test(file.name);
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
  return { items: found.map(makeItem), skipped: 0 }; // the user chose each file, so the server says what is wrong with it
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
  const usable = found.filter(({ name }) => (PICTURE.test(name) || ARCHIVE.test(name)) && !isHidden(name));
  usable.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { items: usable.map(makeItem), skipped: found.length - usable.length };
}

function makeItem({ file, name }) {
  return { file, name, isArchive: isArchive(file) };
}
