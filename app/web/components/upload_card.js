// What one upload looks like: a bar for the whole, a line with a bar for each file, what failed and why.
// Of a very long upload only the lines of what is under way or went wrong are kept.

import { byId, make } from "./dom.js";
import { failureList } from "./failure_list.js";
import { words } from "../i18n/i18n.js";

export const MOST_LINES = 200;

export function makeCard(title, { stop, again }) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: title });
  const text = make("p", { role: "status" });
  const lines = make("ul", { className: "files", hidden: true, tabIndex: 0, ariaLabel: words("files") });
  const failures = failureList();
  const button = make("button", { type: "button", className: "quiet" }, words("cancel"));
  const resend = make("button", { type: "button", className: "button", hidden: true }, words("send_again"));
  const head = make("div", { className: "head" }, make("strong", { dir: "auto" }, title), button);
  const element = make("section", { className: "upload" }, head, bar, text, resend, lines, failures);
  const place = byId("uploads");
  let ended = false;
  button.addEventListener("click", () => {
    if (!ended) return stop();
    element.remove();
    place.hidden = !place.childElementCount;
  });
  resend.addEventListener("click", () => {
    ended = false;
    resend.hidden = true;
    bar.hidden = false;
    element.classList.remove("bad");
    button.textContent = words("cancel");
    again();
  });
  place.prepend(element);
  place.hidden = false;
  return {
    failures,
    line: (name) => addLine(lines, name),
    drop: (line) => lines.childElementCount > MOST_LINES && line.element.remove(),
    progress: (share) => (bar.value = share),
    say: (said) => text.textContent !== said && (text.textContent = said),
    stoppable: (can) => (button.hidden = !can),
    end(said, { bad = false, unsent = false } = {}) {
      ended = true;
      text.textContent = said;
      bar.hidden = true;
      resend.hidden = !unsent;
      button.hidden = false;
      element.classList.toggle("bad", bad);
      button.textContent = words("close");
    },
  };
}

function addLine(lines, name) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: name });
  const said = make("span", { className: "said" }, words("waiting"));
  const element = make("li", {}, make("b", { dir: "auto", title: name }, name), said, bar);
  lines.append(element);
  lines.hidden = false;
  return {
    element,
    progress: (share) => (bar.value = share),
    say(text, kind = "") {
      said.textContent = text;
      element.className = kind;
      bar.hidden = kind !== "";
    },
  };
}
