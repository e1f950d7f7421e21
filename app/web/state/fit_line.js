// Where the hits of a search end that fit: those whose score reaches the server's threshold, or that have all of its
// words.

import { parseQuery } from "./query.js";

const FIT = 2; // a hit that fits counts as much as so many that do not

/** The index of the first hit below the line, or null. Few of those below it fit, and at least a third of those above it. */
export function findFitLine(hits, verdict, { q, sort, target }) {
  const threshold = verdict?.match === "none" ? null : (verdict?.threshold ?? null);
  if (threshold === null || sort || target === "texts") return null;
  const count = countWords(parseQuery(q).words);
  let [surplus, best, line] = [0, 0, 0];
  hits.forEach((hit, n) => {
    surplus += hit.score >= threshold || hasAllWords(hit, count) ? FIT : -1;
    if (surplus < best || surplus <= 0) return;
    [best, line] = [surplus, n + 1];
  });
  return line > 0 && line < hits.length ? line : null;
}

/** Words of one or two letters are such as the server does not look for; in Chinese they say much. */
function countWords(words) {
  const found = words.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return new Set(found.filter((word) => word.length > 2 || /\P{ASCII}/u.test(word))).size;
}

function hasAllWords({ highlights = {} }, count) {
  return count > 0 && new Set(Object.values(highlights).flat().map((word) => word.toLowerCase())).size >= count;
}
