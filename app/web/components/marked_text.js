// A text with the words of a search marked: whole, or the part around the first of them. A tile shows the part, an open
// picture the whole.

import { make } from "./dom.js";

const BEFORE = 12; // characters of a snippet before its first word, or a little more
const LONGEST = 160; // the style cuts it where the tile ends

/** The nodes of a text in which these words are marked. */
export function markWords(text, words) {
  if (!words.length) return [text];
  return text.split(makePattern(words)).map((part, n) => (n % 2 ? make("mark", {}, part) : part));
}

/** The nodes of one line around the first of these words. */
export function markSnippet(text, words) {
  const line = text.replace(/\s+/gu, " ").trim();
  const at = Math.max(line.search(makePattern(words)), 0);
  const space = line.lastIndexOf(" ", at - BEFORE);
  const start = at <= BEFORE ? 0 : Math.max(space + 1, at - 2 * BEFORE); // some scripts have no spaces
  return [start ? "… " : "", ...markWords(line.slice(start, start + LONGEST), words)];
}

function makePattern(words) {
  return new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
}
