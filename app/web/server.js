// Every call to the server, and its refusals as Problem with the server's own `detail`.
// Addresses are relative to the page, so that it also works below a path of a proxy.

const GATEWAY = [502, 504];

export class Problem extends Error {
  constructor({ status = 0, code = "away", detail = "", seconds = 1 } = {}) {
    super(detail || code);
    Object.assign(this, { status, code, detail, seconds });
  }
}

export async function call(path, options = {}) {
  try {
    const response = await fetch(path, options);
    if (response.ok) return await response.json();
    throw await refusal(response);
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem();
  }
}

export function listImages(cursor, limit, signal) {
  const asked = new URLSearchParams({ limit });
  if (cursor) asked.set("cursor", cursor);
  return call(`v1/images?${asked}`, { signal });
}

export function getImage(id) {
  return call(`v1/images/${encodeURIComponent(id)}`);
}

export function search({ q, like, file, target }, k, signal) {
  if (q && !like && !file) return call(`v1/search?${new URLSearchParams({ q, k, target })}`, { signal });
  if (file && !q) return searchByFile(file, k, target, signal);
  return searchByParts({ q, like, file }, k, target, signal);
}

export function failedItems(job, cursor) {
  const asked = new URLSearchParams({ status: "failed", limit: 50 });
  if (cursor) asked.set("cursor", cursor);
  return call(`v1/jobs/${job}/items?${asked}`);
}

export function thumbnail(id) {
  return `v1/images/${encodeURIComponent(id)}/thumbnail`;
}

export function original(id) {
  return `v1/images/${encodeURIComponent(id)}/file`;
}

export function problemOf(status, body, seconds) {
  if (GATEWAY.includes(status) || !body?.detail) return new Problem({ status, code: status >= 500 ? "away" : "bad" });
  return new Problem({ status, code: body.code, detail: body.detail, seconds });
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  return problemOf(response.status, body, Number(response.headers.get("Retry-After")) || 1);
}

function searchByFile(file, k, target, signal) {
  const body = new FormData();
  body.append("file", file);
  return call(`v1/search/image?${new URLSearchParams({ k, target })}`, { method: "POST", body, signal });
}

async function searchByParts({ q, like, file }, k, target, signal) {
  const query = [];
  if (q) query.push({ text: q });
  if (like) query.push({ image_id: like });
  if (file) query.push({ image: await base64(file) });
  const body = JSON.stringify({ query, target, k });
  return call("v1/search", { method: "POST", body, signal, headers: { "Content-Type": "application/json" } });
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
