// Imports pictures that the server fetches or reads itself: from web addresses, and from folders of its machine.
// The dialog offers what the operator allows. An import is a job, which a card shows like an upload.

import { listSources, startImport } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { byId } from "../components/dom.js";
import { handleSubmit } from "../components/form.js";
import { translateCount } from "../i18n/i18n.js";
import { watchJob } from "./upload.js";

const FORMS = { urls: importUrls, server: importFolder };
let sources = null; // {urls, folders, max_urls} as the server allows them

/** `onPictures(isComplete)` when pictures have arrived. */
export function watchSources(onPictures) {
  byId("add").addEventListener("click", async () => {
    showForm(null);
    sources ??= hasScope("write") ? await listSources().catch(() => null) : null;
    byId("add-urls").hidden = !sources?.urls;
    byId("add-server").hidden = !sources?.folders.length;
    byId("folders").replaceChildren(...(sources?.folders ?? []).map((folder) => new Option(folder, folder)));
  });
  byId("add-urls").addEventListener("click", () => showForm("urls"));
  byId("add-server").addEventListener("click", () => {
    showForm("server");
    byId("server-folder").value ||= sources.folders[0];
  });
  for (const [name, startJob] of Object.entries(FORMS)) {
    const form = byId(`from-${name}`);
    handleSubmit(form, async () => {
      const { job, title } = await startJob();
      watchJob(job, title, onPictures);
      form.reset();
      byId("add-dialog").close();
    });
  }
}

/** Show one form of the dialog and hide the other; null hides both. */
function showForm(name) {
  for (const one of Object.keys(FORMS)) byId(`from-${one}`).hidden = one !== name;
  if (name) byId(`from-${name}`).querySelector("textarea, input").focus();
}

/** Each line is an address, or a JSON object with an address and what to store with the picture. */
async function importUrls() {
  const lines = byId("urls").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const body = lines.map((line) => (line.startsWith("{") ? line : JSON.stringify({ url: line }))).join("\n");
  return { job: await startImport(body, "application/x-ndjson"), title: translateCount("many_urls", lines.length) };
}

async function importFolder() {
  const folder = byId("server-folder").value.trim();
  const source = /^[a-z][a-z0-9-]+:/.test(folder) ? folder : `folder:${folder}`; // the user may name another kind
  return { job: await startImport(JSON.stringify({ source }), "application/json"), title: folder };
}
