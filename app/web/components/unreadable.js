// Files that the server could not read are no pictures of the grid: a line above it counts them, and lists their names and
// reasons, each with a link to what the user can do.

import { describeError, translate, translateCount } from "../i18n/i18n.js";
import { makeHref } from "../state/url_state.js";
import { byId, make } from "./dom.js";
import { getName } from "./tile.js";

export function showUnreadable({ failed }) {
  const line = byId("unreadable");
  line.hidden = !failed.length;
  if (line.hidden) return;
  line.querySelector("summary").textContent = translateCount("unreadable", failed.length);
  line.querySelector("ul").replaceChildren(...failed.map(makeItem));
}

function makeItem({ id, image }) {
  const link = make("a", { className: "link to-picture", href: makeHref({ show: id }), dir: "auto" }, getName(image));
  link.dataset.id = id;
  return make("li", {}, link, " ", describeError(image.error ?? { detail: translate("unreadable_one") }));
}
