// The watched folders of a collection, above its jobs: how each stands, and what somebody should look at. A key that may
// write can pause and resume one, and confirm the deletions that it holds.

import { controlWatch, listWatches } from "../api/client.js";
import { hasScope } from "../api/session.js";
import { showProblem } from "../components/banner.js";
import { byId, make, makeButton } from "../components/dom.js";
import { formatDate, translate, translateCount } from "../i18n/i18n.js";

let shown = ""; // the answer that is drawn: a button keeps its focus while nothing changes

/** Show the folders as they are now; gives how many there are. A key that may not write sees none. */
export async function refreshWatches(signal) {
  const { watches } = hasScope("write") ? await listWatches(signal) : { watches: [] };
  const answer = JSON.stringify(watches.map((one) => ({ ...one, seen_at: null })));
  if (answer === shown) return watches.length;
  shown = answer;
  byId("watch-list").hidden = !watches.length;
  byId("watch-list").replaceChildren(...watches.map(makeRow));
  return watches.length;
}

export function clearWatches() {
  shown = "";
  byId("watch-list").replaceChildren();
}

function makeRow({ id, title, source, state, fault, files, failed, held, scanned_at }) {
  const name = make("strong", { className: "name", dir: "auto", title: source }, title);
  const scanned = scanned_at && make("time", { dateTime: scanned_at }, translate("watch_scanned", { time: formatDate(scanned_at) }));
  const head = make("div", { className: "head" }, name, make("p", { className: "when" }, translate("watch_folder"), scanned));
  const parts = [translateCount("watch_files", files), failed ? translate("failed_n", { n: failed }) : null];
  const outcome = make(
    "div",
    { className: "outcome" },
    make("p", {}, make("span", { className: "state" }, translate(`watch_state_${state}`))),
    make("p", { className: "status" }, parts.filter(Boolean).join(" · ")),
    fault && make("p", { className: "status", dir: "auto" }, fault),
  );
  const isPaused = state === "paused";
  const pause = makeAction(id, isPaused ? "resume" : "pause", title);
  const buttons = make("div", { className: "buttons" }, held ? makeAction(id, "confirm", title, held) : null, pause);
  const row = make("li", { className: "job" }, head, outcome, buttons);
  row.dataset.state = fault ? "failed" : state;
  return row;
}

function makeAction(id, action, title, n) {
  const text = n ? translateCount("watch_confirm", n) : translate(action);
  const button = makeButton("button plain", text, { ariaLabel: `${text}: ${title}` });
  button.addEventListener("click", async () => {
    if (n && !button.dataset.armed) {
      button.dataset.armed = "true"; // a second click deletes
      button.textContent = button.ariaLabel = translateCount("watch_confirm_again", n);
      return;
    }
    button.disabled = true;
    try {
      await controlWatch(id, action);
      await refreshWatches();
    } catch (problem) {
      showProblem(problem);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}
