// What this browser knows of the jobs that began in it: their names, and the uploads of this tab that still run, so that a
// reload finds them again. Without storage the page forgets both.

const UPLOADS = "sightline.uploads"; // of this tab
const NAMES = "sightline.jobs"; // of this browser
const MAX_NAMES = 200;

export function readUploads() {
  return read(() => sessionStorage, UPLOADS) ?? [];
}

/** `list`: {title, collection, jobs, unsent} each. */
export function writeUploads(list) {
  write(() => sessionStorage, UPLOADS, list);
}

export function nameJob(id, name) {
  const names = (read(() => localStorage, NAMES) ?? []).filter(([one]) => one !== id);
  write(() => localStorage, NAMES, [...names, [id, name]].slice(-MAX_NAMES));
}

/** The name of a job that began in this browser, or null. */
export function getJobName(id) {
  return read(() => localStorage, NAMES)?.find(([one]) => one === id)?.[1] ?? null;
}

function read(getStorage, key) {
  try {
    const value = JSON.parse(getStorage().getItem(key));
    return Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function write(getStorage, key, value) {
  try {
    getStorage().setItem(key, JSON.stringify(value));
  } catch {
    // a browser without storage
  }
}
