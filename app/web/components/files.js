// Files out of what was dropped or chosen: folders are walked, hidden files and others than pictures and archives are
// left out. Each comes as {file, name, archive}; `name` keeps the path inside its folder.

const PICTURE = /\.(jpe?g|png|webp|gif|avif)$/i;
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;

export function isArchive(file) {
  return ARCHIVE.test(file.name);
}

/** What a drop carries. Must be called in the event itself; the promise may come later. */
export async function ofDrop(carried) {
  const entries = [...carried.items].map((item) => item.kind === "file" && item.webkitGetAsEntry?.());
  const files = [...carried.files]; // both only live as long as the event
  if (!entries.some((entry) => entry?.isDirectory)) return ofFiles(files);
  const found = [];
  for (const entry of entries) if (entry) await walk(entry, "", found);
  return sorted(found);
}

export function ofFiles(files) {
  const found = files.map((file) => ({ file, name: file.webkitRelativePath || file.name }));
  return found.some(({ file }) => file.webkitRelativePath) ? sorted(found) : { items: found.map(typed), left: 0 };
}

async function walk(entry, path, found) {
  const name = path + entry.name;
  if (entry.isFile) {
    found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at a time
    if (!some.length) return;
    for (const one of some) await walk(one, `${name}/`, found);
  }
}

/** Of a folder only what can be taken in; what was named file by file is sent, so that the server says why not. */
function sorted(found) {
  const fits = ({ name }) => (PICTURE.test(name) || ARCHIVE.test(name)) && !name.split("/").some((s) => s.startsWith("."));
  const items = found.filter(fits).sort((a, b) => (a.name < b.name ? -1 : 1));
  return { items: items.map(typed), left: found.length - items.length };
}

function typed(one) {
  return { ...one, archive: isArchive(one.file) };
}
