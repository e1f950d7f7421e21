// The card of one upload: its progress, a line with a progress bar for each file, and the failures with their reasons.
// A long upload keeps only the lines of files that are in progress or failed.

import { translate } from "../i18n/i18n.js";
import { byId, make, makeButton } from "./dom.js";
import { makeFailureList } from "./failure_list.js";

export const MAX_LINES = 200;

export function makeCard(title, { onCancel, onSendAgain }) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: title });
  const status = make("p", { role: "status" });
  const lines = make("ul", { className: "files", hidden: true, tabIndex: 0, ariaLabel: translate("files") });
  const failures = makeFailureList();
  const button = makeButton("quiet", translate("cancel")); // "Close" after the end
  const sendAgain = makeButton("button", translate("send_again"), { hidden: true });
  const head = make("div", { className: "head" }, make("strong", { dir: "auto" }, title), button);
  const card = make("section", { className: "upload" }, head, bar, status, sendAgain, lines, failures);
  const uploads = byId("uploads");
  let isEnded = false;
  button.addEventListener("click", () => {
    if (!isEnded) return onCancel();
    card.remove();
    uploads.hidden = !uploads.childElementCount;
  });
  sendAgain.addEventListener("click", () => {
    isEnded = false;
    sendAgain.hidden = true;
    bar.hidden = false;
    card.classList.remove("error");
    button.textContent = translate("cancel");
    onSendAgain();
  });
  uploads.prepend(card);
  uploads.hidden = false;
  return {
    failures,
    addLine: (name) => addLine(lines, name),
    removeLine: (line) => lines.childElementCount > MAX_LINES && line.element.remove(),
    setProgress: (share) => (bar.value = share),
    setStatus: (text) => status.textContent !== text && (status.textContent = text),
    hideCancel: () => (button.hidden = true),
    end(text, { isError = false, hasUnsent = false } = {}) {
      isEnded = true;
      status.textContent = text;
      bar.hidden = true;
      sendAgain.hidden = !hasUnsent;
      button.hidden = false;
      card.classList.toggle("error", isError);
      button.textContent = translate("close");
    },
  };
}

function addLine(lines, name) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: name });
  const status = make("span", { className: "status" }, translate("waiting"));
  const element = make("li", {}, make("b", { dir: "auto", title: name }, name), status, bar);
  lines.append(element);
  lines.hidden = false;
  return {
    element,
    setProgress: (share) => (bar.value = share),
    /** `kind`: "" while the file is on its way, then "muted" or "error". */
    setStatus(text, kind = "") {
      status.textContent = text;
      element.className = kind;
      bar.hidden = kind !== "";
    },
  };
}
