// The filter as a list of conditions: ["tag", "red"], ["format", "png"], ["from", "2026-01-31"], ["to", …],
// ["meta", "camera=X100"], ["job", "ID,ID"], ["auto", "car"] (an auto-tag). Reads them from an address, and turns them into the JSON that the server takes.

const KINDS = ["tag", "auto", "format", "from", "to", "meta", "job"];
const PICTURE_KINDS = ["tag", "auto", "format", "job"];
export const SINGLE_KINDS = ["format", "from", "to"];
const FORMATS = ["avif", "bmp", "gif", "heic", "jpeg", "jpeg2000", "jxl", "png", "raw", "tiff", "webp"];
const MAX_CONDITIONS = 20;
const DAY = /^[1-9]\d{3}-\d\d-\d\d$/;

/** Read the valid conditions from URL parameters. */
export function readFilter(parameters) {
  const conditions = [];
  for (const kind of KINDS) {
    const values = parameters.getAll(kind).map((value) => value.trim()).filter((value) => isValid(kind, value));
    for (const value of new Set(SINGLE_KINDS.includes(kind) ? values.slice(0, 1) : values)) conditions.push([kind, value]);
  }
  return conditions.slice(0, MAX_CONDITIONS);
}

function isValid(kind, value) {
  if (kind === "format") return FORMATS.includes(value);
  if (kind === "from" || kind === "to") return DAY.test(value) && !Number.isNaN(midnight(value).getTime());
  if (kind === "meta") return /^[^"\\=]+=./.test(value) && value.length <= 400;
  if (kind === "job") return /^[0-9a-f]{32}(,[0-9a-f]{32}){0,99}$/.test(value);
  return value.length > 0 && value.length <= 100;
}

/** Leave out the conditions that do not apply to the target (`images` or `texts`). */
export function selectApplicable(conditions, target) {
  return conditions.filter(([kind]) => target === "images" || !PICTURE_KINDS.includes(kind));
}

/** Build the server's filter, or null without conditions. Days are those on which pictures were taken, by the camera's
 * clock; of others the days on which they were added, which begin at midnight of this browser's clock. */
export function buildFilter(conditions, target) {
  const must = selectApplicable(conditions, target).map(([kind, value]) => buildCondition(kind, value, target));
  return must.length ? { must } : null;
}

function buildCondition(kind, value, target) {
  if (kind === "tag") return { key: "tags", match: { value } };
  if (kind === "auto") return { key: "auto_tags", match: { value } };
  if (kind === "format") return { key: "format", match: { value } };
  if (kind === "from") return buildBound("gte", midnight(value), target);
  if (kind === "to") return buildBound("lt", midnight(value, 1), target);
  if (kind === "job") return { key: "job_id", match: { any: value.split(",") } };
  const equals = value.indexOf("=");
  const any = listReadings(value.slice(equals + 1).trim());
  return { key: `metadata.${quotePath(value.slice(0, equals).trim())}`, match: { any } };
}

function buildBound(comparison, date, target) {
  const added = { key: "created_at", range: { [comparison]: date.toISOString() } };
  if (target !== "images") return added;
  const taken = { key: "taken_at", range: { [comparison]: formatDay(date) } };
  return { should: [taken, { must: [{ is_null: { key: "taken_at" } }, added] }] };
}

/** The conditions of a filter as `buildFilter` makes it; others have no chip, and are left out. */
export function readConditions(filter) {
  return (filter?.must ?? []).map(readCondition).filter(Boolean);
}

function readCondition({ key, match, range, should }) {
  if (should?.[1]?.must?.[1]) return readCondition(should[1].must[1]); // see buildBound
  const kind = { tags: "tag", auto_tags: "auto", format: "format" }[key];
  if (kind && match?.value) return [kind, match.value];
  if (key === "job_id" && match?.any) return ["job", match.any.join(",")];
  if (key === "created_at" && range?.gte) return ["from", formatDay(new Date(range.gte))];
  if (key === "created_at" && range?.lt) return ["to", formatDay(new Date(new Date(range.lt).getTime() - 1))];
  if (key?.startsWith("metadata.") && match?.any) return ["meta", `${key.slice(9).replaceAll('"', "")}=${match.any[0]}`];
  return null;
}

function formatDay(date) {
  const pad = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
}

function midnight(day, daysLater = 0) {
  const date = new Date(`${day}T00:00`);
  date.setDate(date.getDate() + daysLater);
  return date;
}

/** Dots in a name lead into nested objects; quotes around each part allow any other character. */
function quotePath(name) {
  return name.split(".").map((part) => `"${part.trim()}"`).join(".");
}

/** The user may mean the text itself, a number, or a boolean. */
function listReadings(text) {
  const readings = [text];
  if (/^-?\d+(\.\d+)?$/.test(text)) readings.push(Number(text));
  if (text === "true" || text === "false") readings.push(text === "true");
  return readings;
}
