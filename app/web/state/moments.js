// Frames of one video among the hits: the first of them, which is the best of a search, stands for all.
// It says how many there are.

/** The hits with one for each video; it has `moments`, the number of frames of this video among the hits. */
export function collapseVideos(hits) {
  const places = new Map(); // id of a video -> index
  const kept = [];
  for (const hit of hits) {
    const id = hit.image?.video_id;
    if (id && places.has(id)) kept[places.get(id)].moments++;
    else {
      if (id) places.set(id, kept.length);
      kept.push(id ? { ...hit, moments: 1 } : hit);
    }
  }
  return kept;
}
