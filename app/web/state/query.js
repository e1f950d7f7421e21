// Parses typed text into words and texts to avoid ("beach -people", "-\"red car\""), and builds the weighted parts
// of a query for POST /v1/search.

const AVOID_WEIGHT = 0.7; // relative to the words: at 1 the words count little, below 0.5 the avoided text does
const MAX_AVOIDED = 8;
const MINUS = /(^|\s)[-－−](?:"([^"]*)"?|([^\s"－−-]\S*))/gu;
const LONE_MINUS = /(^|\s)[-－−]+(?=\s|$)/gu; // the user has not typed the word yet

export function parseQuery(q) {
  const without = [];
  const words = q.replace(MINUS, (whole, before, phrase, word) => {
    const text = (phrase ?? word).trim();
    if (text && !without.includes(text) && without.length < MAX_AVOIDED) without.push(text);
    return before;
  });
  return { words: words.replace(LONE_MINUS, "$1").replace(/\s+/g, " ").trim(), without };
}

/** Whether the query has both words and pictures, so that the weight matters. */
export function isMixed({ q, like, file }) {
  return Boolean(q && (like.length || file));
}

/** `image`: the dropped picture in base64, or null. */
export function buildParts(query, image) {
  const { words, without } = parseQuery(query.q);
  const pictures = query.like.length + (image ? 1 : 0);
  const wordWeight = isMixed(query) ? 1 - query.weight : 1;
  const pictureWeight = (isMixed(query) ? query.weight : 1) / Math.max(pictures, 1);
  return [
    ...(words ? [buildPart({ text: words }, wordWeight)] : []),
    ...without.map((text) => buildPart({ text }, -AVOID_WEIGHT * wordWeight)),
    ...query.like.map((image_id) => buildPart({ image_id }, pictureWeight)),
    ...(image ? [buildPart({ image }, pictureWeight)] : []),
  ];
}

/** The words (`q`) and pictures of parts as `buildParts` makes them. */
export function joinQuery(parts) {
  const texts = parts.filter(({ text }) => text).map(({ text, weight = 1 }) => (weight < 0 ? `-"${text}"` : text));
  return { q: texts.join(" "), like: parts.map(({ image_id }) => image_id).filter(Boolean) };
}

function buildPart(part, weight) {
  return weight === 1 ? part : { ...part, weight: Math.round(weight * 1000) / 1000 }; // the server's default is 1
}
