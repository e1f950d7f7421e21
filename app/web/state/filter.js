// The filter as a list of conditions: ["tag", "red"], ["format", "png"], ["from", "2026-01-31"], ["to", …],
// ["meta", "camera=X100"], ["job", "ID,ID"]. Reads them from an address, and turns them into the JSON that the server takes.

const KINDS = ["tag", "format", "from", "to", "meta", "job"];
const PICTURE_KINDS = ["tag", "format", "job"];
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

/** Build the server's filter, or null without conditions. Days begin at midnight of this browser's clock. */
export function buildFilter(conditions, target) {
  const must = selectApplicable(conditions, target).map(([kind, value]) => buildCondition(kind, value));
  return must.length ? { must } : null;
}

function buildCondition(kind, value) {
  if (kind === "tag") return { key: "tags", match: { value } };
  if (kind === "format") return { key: "format", match: { value } };
  if (kind === "from") return { key: "created_at", range: { gte: midnight(value).toISOString() } };
  if (kind === "to") return { key: "created_at", range: { lt: midnight(value, 1).toISOString() } };
  if (kind === "job") return { key: "job_id", match: { any: value.split(",") } };
  const equals = value.indexOf("=");
  const any = listReadings(value.slice(equals + 1).trim());
  return { key: `metadata.${quotePath(value.slice(0, equals).trim())}`, match: { any } };
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
