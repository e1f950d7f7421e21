// The rows of the grid, computed before a picture arrives: each is filled to the edge at a height near `height`.
// Only numbers, no document. The last row stays out until it is full or nothing more comes, so no row ever changes.

const NARROWEST = 0.6; // width to height of a place; what is beyond is cropped at its edges
const WIDEST = 2.4;
const TALLEST = 1.3; // times the wanted height

export function ratioOf({ width, height }) {
  const ratio = width && height ? width / height : 1;
  return Math.min(Math.max(ratio, NARROWEST), WIDEST);
}

/** Add to `rows` ({first, end, top, height}, `end` past the last) what `ratios` has beyond them. */
export function addRows(rows, ratios, { width, height, gap, below, done }) {
  const last = rows.at(-1);
  let first = last?.end ?? 0;
  let top = last ? last.top + last.height + below : 0;
  while (first < ratios.length) {
    const row = fill(ratios, first, width, height, gap);
    if (!row.full && !done) break;
    const tall = row.full ? row.height : Math.min(row.height, usual(rows) ?? height);
    rows.push({ first, end: row.end, top, height: tall });
    first = row.end;
    top += tall + below;
  }
}

/** The first row that ends below `y`, by its number. */
export function rowAt(rows, y, below) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height + below > y) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The row that holds a place. */
export function rowOf(rows, index) {
  let low = 0;
  let high = rows.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].end > index) high = middle;
    else low = middle + 1;
  }
  return low;
}

function fill(ratios, first, width, height, gap) {
  let sum = 0;
  for (let end = first; end < ratios.length; end++) {
    sum += ratios[end];
    const n = end - first + 1;
    const filled = (width - gap * (n - 1)) / sum;
    if (filled > height) continue;
    const shorter = (width - gap * (n - 2)) / (sum - ratios[end]); // without the last: higher than wanted
    const better = n > 1 && shorter <= height * TALLEST && shorter / height < height / filled;
    return better ? { end, height: shorter, full: true } : { end: end + 1, height: filled, full: true };
  }
  return { end: ratios.length, height: (width - gap * (ratios.length - first - 1)) / sum, full: false };
}

/** How tall the rows are in the middle; the last, short one is no taller. */
function usual(rows) {
  return rows.map((row) => row.height).sort((a, b) => a - b)[rows.length >> 1];
}
