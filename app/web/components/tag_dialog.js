// The dialog that adds one tag to the selected pictures.
// The page reads each picture again before it changes it, so that it keeps tags that others have added meanwhile.

import { getImage, runConcurrently, updateImage } from "../api/client.js";
import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { byId } from "./dom.js";
import { toast } from "./toast.js";

/** `onChange(image)` after each picture. */
export function openTagDialog(hits, onChange) {
  const dialog = byId("tag-dialog");
  const field = byId("tag");
  field.value = "";
  dialog.querySelector("form").onsubmit = () => {
    const tag = field.value.trim();
    if (tag) addTag(hits, tag, onChange);
  };
  dialog.showModal();
}

async function addTag(hits, tag, onChange) {
  const collection = currentCollection();
  const { failed, problem } = await runConcurrently(hits, async ({ id }) => {
    const image = await getImage(id, collection);
    const hasTag = image.tags.includes(tag);
    onChange(hasTag ? image : await updateImage(id, { tags: [...image.tags, tag] }, collection));
  });
  const text = translateCount("tagged", hits.length - failed.length, { tag });
  toast(problem ? `${text} ${translate("some_failed", { detail: describeError(problem) })}` : text);
}
