// What a model wrote about a picture: marked as such, apart from the caption of the user. The user can delete it, or let
// the model write again.

import { enrichAgain, updateImage } from "../api/client.js";
import { describeError, translate } from "../i18n/i18n.js";
import { make, makeButton } from "./dom.js";
import { toast } from "./toast.js";

/** The section, or null if there is nothing to show; `onChange(image)` gets the changed record. */
export function makeGeneratedCaption(image, { canEdit, onChange }) {
  if (!image.generated_caption) return null;
  const note = make("p", { className: "muted" }, translate("generated"));
  const section = make("section", { className: "generated" }, make("p", { dir: "auto" }, image.generated_caption), note);
  if (!canEdit) return section;
  const addAction = (action, run) => {
    const button = makeButton("link", translate(action));
    button.addEventListener("click", async () => {
      button.disabled = true;
      await run().catch((problem) => toast(translate("not_done", { detail: describeError(problem) })));
      button.disabled = false;
    });
    note.append(" ", button);
  };
  addAction("generated_again", async () => {
    await enrichAgain("caption", image.id, image.collection);
    toast(translate("generated_waits"));
  });
  addAction("generated_delete", async () => {
    const changed = await updateImage(image.id, { generated_caption: null }, image.collection);
    const dialog = section.closest("dialog");
    section.remove();
    onChange(changed);
    dialog?.querySelector("textarea").focus();
  });
  return section;
}
