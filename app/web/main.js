// Puts the page together: the address says what is shown, every action changes the address, and `show` draws it.
// One search is under way at a time; the answer of an older one is dropped.

import { keyOf, queryOf, readState, remember, writeState } from "./address.js";
import { showQuery, watchBox } from "./box.js";
import { watchDrops } from "./drop.js";
import { byId } from "./element.js";
import { found, newest } from "./feed.js";
import * as notice from "./notice.js";
import { drawHits, drawMessage } from "./results.js";
import { getImage } from "./server.js";
import { upload } from "./upload.js";
import { closeView, openView, watchView } from "./view.js";
import { fillWords, switchLanguage, words } from "./words.js";

const REST = 2000; // ms without typing after which the next words make a step in the history
const results = byId("results");

let state = readState();
let drawn = null; // the key of the search whose results stand on the page
let hits = [];
let last = null; // the last page of the feed
let feed = null;
let running = null;
let typing = 0; // when the words last changed, 0 once they rest

function go(change, { push = true } = {}) {
  state = { ...state, lost: false, opened: false, ...change };
  writeState(state, push);
  show();
}

function show() {
  const query = queryOf(state);
  showQuery(query, state.q);
  document.querySelector(`#target [value=${state.target}]`).checked = true;
  document.title = query.q ? `${query.q} · Sightline` : "Sightline";
  if (keyOf(state) !== drawn) begin();
  if (state.show) openShown();
  else closeView();
}

function begin() {
  drawn = keyOf(state);
  const query = queryOf(state);
  const asking = query.q || query.like || query.file;
  running?.abort();
  running = null;
  notice.clear();
  if (state.lost) notice.tell(words("gone"));
  if (!asking && query.target === "texts") {
    feed = null;
    hits = [];
    byId("count").textContent = "";
    drawMessage(words("ask_texts_title"), words("ask_texts"));
    return;
  }
  feed = asking ? found(query) : newest();
  advance(true);
}

function again() {
  drawn = null;
  show();
}

async function advance(fresh) {
  const mine = (running = new AbortController());
  results.ariaBusy = "true";
  try {
    const page = await feed.next(mine.signal);
    if (mine !== running) return;
    arrived(page, fresh);
  } catch (problem) {
    if (mine !== running || problem.name === "AbortError") return;
    refused(problem, fresh);
  } finally {
    if (mine === running) {
      running = null;
      results.ariaBusy = "false";
      reach();
    }
  }
}

function arrived(page, fresh) {
  last = page;
  hits = fresh ? page.items : [...hits, ...page.items];
  if (fresh) window.scrollTo(0, 0);
  if (hits.length) drawHits(page.items, state, { fresh });
  else drawNothing(page.answer);
  byId("count").textContent = counted(page);
}

function counted({ answer, done }) {
  const n = hits.length;
  if (!n) return "";
  if (!answer) return words(n === 1 && done ? "newest_one" : done ? "newest_all" : "newest", { n });
  const ms = Math.max(1, Math.round(answer.took_ms.total));
  return words(state.target === "images" ? "found_images" : "found_texts", { n, searched: answer.searched, ms });
}

function drawNothing(answer) {
  if (!answer) drawMessage(words("nothing_title"), words("nothing"), words("nothing_command"));
  else if (answer.hits.length) drawMessage(words("no_hits_title"), words("only_itself"));
  else drawMessage(words("no_hits_title"), words(state.target === "images" ? "no_hits_images" : "no_hits_texts"));
}

function refused(problem, fresh) {
  const final = problem.status && problem.status < 500 && problem.status !== 429;
  if (final && !fresh) {
    last.done = true; // the server gives no more; what is shown stays
    return;
  }
  feed = null;
  notice.tellProblem(problem, again);
  if (final) {
    hits = [];
    results.replaceChildren();
    byId("count").textContent = "";
  }
}

async function openShown() {
  const wanted = state.show;
  const at = hits.findIndex((hit) => hit.id === wanted);
  if (at >= 0) {
    openView(hits[at], { previous: at > 0, next: at + 1 < hits.length });
    return;
  }
  try {
    const image = await getImage(wanted);
    if (state.show === wanted) openView({ id: wanted, image }, { previous: false, next: false });
  } catch (problem) {
    if (state.show !== wanted) return;
    go({ show: null }, { push: false });
    notice.tellProblem(problem, again);
  }
}

function refresh() {
  const { q, like, file } = queryOf(state);
  if (!hits.length || (!(q || like || file) && scrollY < 400)) again();
}

function closed() {
  if (!state.show || byId("view").open) return;
  const { show: id, opened } = state;
  if (opened) history.back();
  else go({ show: null }, { push: false });
  results.querySelector(`[data-id="${CSS.escape(id)}"]`)?.focus({ preventScroll: true });
}

function step(by) {
  const next = hits[hits.findIndex((hit) => hit.id === state.show) + by];
  if (next && state.show) go({ show: next.id, opened: state.opened }, { push: false });
}

function typed(q) {
  if (q.trim() === state.q.trim()) return;
  const push = !typing || Date.now() - typing > REST;
  typing = Date.now();
  go({ q, show: null }, { push });
}

function searchBy(file) {
  typing = 0;
  box.cancel();
  go({ q: "", like: null, show: null, picture: remember(file) });
}

function follow(event) {
  const link = event.target.closest("a.tile, .list a, #home");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  typing = 0;
  if (link.dataset.id) go({ show: link.dataset.id, opened: true });
  else {
    history.pushState({}, "", link.href);
    state = readState();
    show();
  }
}

const ending = new IntersectionObserver(([end]) => end.isIntersecting && reach(true), { rootMargin: "900px" });

function reach(near = byId("end").getBoundingClientRect().top < innerHeight + 900) {
  if (near && feed && hits.length && !running && !last.done) advance(false);
}

function speak() {
  fillWords();
  byId("language").textContent = words("other_language");
  byId("language").lang = words("other_language") === "English" ? "en" : "zh";
}

speak();
const box = watchBox({
  typed,
  settled: () => (typing = 0),
  unpictured: () => go({ like: null, picture: null }),
});
watchDrops({ searched: searchBy, added: (files) => upload(files, refresh) });
watchView({ closed, stepped: step, alike: (like) => go({ like, q: "", picture: null, show: null, target: "images" }) });
byId("target").addEventListener("change", (event) => go({ target: event.target.value }));
byId("language").addEventListener("click", () => {
  switchLanguage();
  speak();
  again();
});
document.addEventListener("click", follow);
window.addEventListener("popstate", () => {
  state = readState();
  typing = 0;
  box.cancel();
  show();
});
ending.observe(byId("end"));
writeState(state, false);
show();
if (matchMedia("(pointer: fine)").matches && !state.show) byId("box").focus();
notice.checkReady(again);
