// The line that says that a search by a file of this computer is not in the address, and the button that adds the file to
// the collection, so that the address holds the search.

import { addImage } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { describeError, translate } from "../i18n/i18n.js";
import { currentCollection } from "../state/collection_context.js";
import { byId } from "./dom.js";
import { toast } from "./toast.js";

const WAIT_S = 20; // until searches find the picture

/** `file`: the one that is searched by, or null. */
export function showUnshared(file) {
  byId("unshared").hidden = !file;
  const button = byId("unshared").querySelector("button");
  button.textContent = translate("unshared_add", { name: currentCollection() });
  button.hidden = !hasScope("write");
}

/** `getFile()` gives the file, `onAdd(image)` searches by its picture instead. */
export function watchUnshared({ getFile, onAdd }) {
  const button = byId("unshared").querySelector("button");
  button.addEventListener("click", async () => {
    const file = getFile();
    button.disabled = true;
    try {
      const image = await addImage(file, file.name, {}, currentCollection(), WAIT_S);
      if (getFile() === file) onAdd(image);
    } catch (problem) {
      toast(translate("not_done", { detail: describeError(problem) }));
    }
    button.disabled = false;
  });
}
