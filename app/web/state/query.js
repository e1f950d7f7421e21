// What was typed, taken apart: words, and words to turn away from ("beach -people", "-\"red car\"").
// The parts of a search with their weights, as POST /v1/search takes them.

const AWAY = 0.7; // of the words' own weight; with 1 little of the words is left, below 0.5 little is turned away
const MOST_AWAY = 8;
const MINUS = /(^|\s)[-－−](?:"([^"]*)"?|([^\s"－−-]\S*))/gu;
const LONE_MINUS = /(^|\s)[-－−]+(?=\s|$)/gu; // still being typed

export function taken(q) {
  const without = [];
  const words = q.replace(MINUS, (whole, before, phrase, word) => {
    const text = (phrase ?? word).trim();
    if (text && !without.includes(text) && without.length < MOST_AWAY) without.push(text);
    return before;
  });
  return { words: words.replace(LONE_MINUS, "$1").replace(/\s+/g, " ").trim(), without };
}

export function isMixed({ q, like, file }) {
  return Boolean(q && (like.length || file));
}

/** The parts; `image` is the dropped picture as base64 or null. A weight of 1 need not be said. */
export function parts(query, image) {
  const { words, without } = taken(query.q);
  const pictures = query.like.length + (image ? 1 : 0);
  const forWords = isMixed(query) ? 1 - query.weight : 1;
  const forPictures = (isMixed(query) ? query.weight : 1) / Math.max(pictures, 1);
  return [
    ...(words ? [weighed({ text: words }, forWords)] : []),
    ...without.map((text) => weighed({ text }, -AWAY * forWords)),
    ...query.like.map((image_id) => weighed({ image_id }, forPictures)),
    ...(image ? [weighed({ image }, forPictures)] : []),
  ];
}

function weighed(part, weight) {
  return weight === 1 ? part : { ...part, weight: Math.round(weight * 1000) / 1000 };
}
