// Adds one tag to many pictures, asked for in a small dialog.
// Each picture is read anew before it is changed, so that what others have said meanwhile stays.

import { byId } from "./dom.js";
import { here } from "../state/collection_context.js";
import { changeImage, getImage } from "../api/client.js";
import { toast } from "./toast.js";
import { counted, words } from "../i18n/i18n.js";

const AT_ONCE = 6;

export function beginTagging(hits, changed) {
  const dialog = byId("tagging");
  const field = byId("tag");
  const form = dialog.querySelector("form");
  field.value = "";
  form.onsubmit = () => {
    const tag = field.value.trim();
    if (tag) addTag(hits, tag, changed);
  };
  dialog.querySelector("[data-close]").onclick = () => dialog.close();
  dialog.showModal();
}

async function addTag(hits, tag, changed) {
  const waiting = hits.map(({ id }) => id);
  const place = here();
  let done = 0;
  let problem = null;
  const one = async () => {
    for (let id = waiting.pop(); id; id = waiting.pop()) {
      try {
        const image = await getImage(id, place);
        const known = image.tags.includes(tag);
        changed(known ? image : await changeImage(id, { tags: [...image.tags, tag] }, place));
        done++;
      } catch (error) {
        problem = error;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  const why = problem ? ` ${words("not_all", { detail: problem.detail || words("away_short") })}` : "";
  toast(counted("tagged", done, { tag }) + why);
}
