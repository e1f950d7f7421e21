// Computes the rows of the grid before any picture has loaded. Each row fills the width at a height near `height`.
// Leaves out the last row until it is full or the list is complete, so that no row changes later.

const MIN_RATIO = 0.6; // width to height; the page crops pictures beyond these limits
const MAX_RATIO = 2.4;
const MAX_STRETCH = 1.3; // of a row, times the wanted height

export function clampRatio({ width, height }) {
  const ratio = width && height ? width / height : 1;
  return Math.min(Math.max(ratio, MIN_RATIO), MAX_RATIO);
}

/** Whether the page shows only a part of the picture: a panorama, a long screenshot. */
export function isCropped({ width, height }) {
  return Boolean(width && height) && clampRatio({ width, height }) !== width / height;
}

/**
 * Extend `rows` by the rows of the remaining `ratios`. A row is {first, end, top, height} in px; `end` is exclusive.
 * The item `lineAt` begins a row, above which there is room for a line.
 */
export function addRows(rows, ratios, { width, height, gap, below, done, lineAt = Infinity, lineHeight = 0 }) {
  const last = rows.at(-1);
  let first = last?.end ?? 0;
  let top = last ? last.top + last.height + below : 0;
  while (first < ratios.length) {
    const isAbove = first < lineAt && lineAt <= ratios.length;
    const row = fillRow(ratios, first, isAbove ? lineAt : ratios.length, width, height, gap);
    if (!row.isFull && !done && !isAbove) break;
    if (first === lineAt) top += lineHeight;
    const rowHeight = row.isFull ? row.height : Math.min(row.height, medianHeight(rows) ?? height);
    rows.push({ first, end: row.end, top, height: rowHeight });
    first = row.end;
    top += rowHeight + below;
  }
}

/** The index of the first row that ends below `y`. */
export function findRowAt(rows, y, below) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height + below > y) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The index of the row that contains the item `index`. */
export function findRowOf(rows, index) {
  let low = 0;
  let high = rows.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].end > index) high = middle;
    else low = middle + 1;
  }
  return low;
}

function fillRow(ratios, first, limit, width, height, gap) {
  let sum = 0;
  for (let end = first; end < limit; end++) {
    sum += ratios[end];
    const n = end - first + 1;
    const filled = (width - gap * (n - 1)) / sum;
    if (filled > height) continue;
    const taller = (width - gap * (n - 2)) / (sum - ratios[end]); // without the last picture
    const isBetter = n > 1 && taller <= height * MAX_STRETCH && taller / height < height / filled;
    return isBetter ? { end, height: taller, isFull: true } : { end: end + 1, height: filled, isFull: true };
  }
  return { end: limit, height: (width - gap * (limit - first - 1)) / sum, isFull: false };
}

/** Also the maximum height of a last row that is not full. */
function medianHeight(rows) {
  return rows.map((row) => row.height).sort((a, b) => a - b)[rows.length >> 1];
}
