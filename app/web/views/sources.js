// Adding what the server gets by itself: pictures by their addresses, and folders of its own machine.
// Each is offered where its operator allows it; what comes of it is a job, followed like an upload.

import { byId } from "../components/dom.js";
import { askFor, listSources } from "../api/client.js";
import { may } from "../api/session.js";
import { watchJob } from "./upload.js";
import { counted, words } from "../i18n/i18n.js";

let allowed = null; // {urls, folders, max_urls}, once it was asked for

/** `finished(all)` is told when pictures have come. */
export function watchSources(finished) {
  const dialog = byId("adding");
  byId("add").addEventListener("click", async () => {
    close();
    allowed ??= may("write") ? await listSources().catch(() => null) : null;
    byId("add-urls").hidden = !allowed?.urls;
    byId("add-server").hidden = !allowed?.folders.length;
    byId("roots").replaceChildren(...(allowed?.folders ?? []).map((folder) => new Option(folder, folder)));
  });
  byId("add-urls").addEventListener("click", () => show("urls"));
  byId("add-server").addEventListener("click", () => {
    show("server");
    const field = byId("server-folder");
    field.value ||= allowed.folders[0];
  });
  for (const [name, asked] of Object.entries({ urls: askUrls, server: askFolder })) {
    const form = byId(`from-${name}`);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      await send(form, asked, finished);
      if (form.hidden) dialog.close();
    });
  }
}

function show(name) {
  for (const one of ["urls", "server"]) byId(`from-${one}`).hidden = one !== name;
  byId(`from-${name}`).querySelector("textarea, input").focus();
}

function close() {
  for (const name of ["urls", "server"]) byId(`from-${name}`).hidden = true;
}

async function send(form, asked, finished) {
  const [save, wrong] = [form.querySelector(".button"), form.querySelector(".bad")];
  save.disabled = true;
  wrong.hidden = true;
  try {
    const { job, title } = await asked();
    watchJob(job, title, finished);
    form.hidden = true;
    form.reset();
  } catch (problem) {
    wrong.textContent = problem.detail || words("away_short");
    wrong.hidden = false;
  }
  save.disabled = false;
}

/** One address a line, or one JSON object with what is to be said of it. */
async function askUrls() {
  const lines = byId("urls").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const body = lines.map((line) => (line.startsWith("{") ? line : JSON.stringify({ url: line }))).join("\n");
  return { job: await askFor(body, "application/x-ndjson"), title: counted("many_urls", lines.length) };
}

async function askFolder() {
  const folder = byId("server-folder").value.trim();
  const source = /^[a-z][a-z0-9-]+:/.test(folder) ? folder : `folder:${folder}`; // other kinds are named in full
  const body = JSON.stringify({ source });
  return { job: await askFor(body, "application/json"), title: folder };
}
