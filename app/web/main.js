// Puts the page together: the address says what is shown, every action changes the address, and `show` draws it.
// One search is under way at a time; the answer of an older one is dropped.

import { keyOf, MOST_LIKE, queryOf, readState, remember, writeState } from "./state/url_state.js";
import { showQuery, watchBox } from "./components/search_box.js";
import { chooseAll, chosenHits, isChoosing, toggle, unchoose, watchChoice } from "./state/selection.js";
import { lookAround, showPlace, watchCollections } from "./views/collections.js";
import { watchDrops } from "./components/drop_zone.js";
import { byId, make } from "./components/dom.js";
import { found, newest } from "./state/pager.js";
import { watchFilter } from "./state/filter.js";
import { showFrame, speak } from "./views/header.js";
import { closeJobs, openJobs, redrawJobs } from "./views/jobs.js";
import { watchKeys } from "./components/keyboard.js";
import { changeEverywhere, forgetAll, keep, keptOf, Listing } from "./state/result_list.js";
import { drawNothing, inviteTexts } from "./views/empty_state.js";
import * as notice from "./components/banner.js";
import { goTo, here, settle } from "./state/collection_context.js";
import { remove, watchRemoval } from "./state/deletions.js";
import { clear, currentGrid, drawHits, drawMessage, mark, redraw } from "./views/results.js";
import { getImage } from "./api/client.js";
import { boundTo, letIn, watchSession } from "./api/session.js";
import { watchSources } from "./views/sources.js";
import { beginTagging } from "./components/tag_dialog.js";
import { showTally } from "./components/result_count.js";
import { finish, takeBack, watchToast } from "./components/toast.js";
import { upload } from "./views/upload.js";
import { closeView, openView, watchView } from "./views/detail.js";
import { switchLanguage, words } from "./i18n/i18n.js";

const REST = 2000; // ms without typing after which the next words make a step in the history
const NEAR = 1200; // px above the end of the page at which more is asked for
const SETTLED = 150; // ms after which a place on the page is remembered
const results = byId("results");

let state = readState();
let drawn = null; // the key of the search whose results stand on the page
let listing = new Listing(null, null, false);
let running = null;
let typing = 0; // when the words last changed, 0 once they rest
let scrolling = 0;
let returning = null; // the picture that was large when it was closed

function go(change, { push = true } = {}) {
  if (push) keepPlace();
  const moved = push ? { scroll: 0, count: 0 } : {};
  state = { ...state, ...moved, lost: false, opened: false, ...change };
  if (change.show) Object.assign(state, { scroll: scrollY, count: listing.hits.length });
  writeState(state, push);
  show();
}

function show({ restored = false } = {}) {
  const query = queryOf(state);
  const jobs = state.view === "jobs";
  if (state.collection !== here()) enter(state.collection);
  showQuery(query, state.q);
  showFrame(state);
  if (jobs) openJobs();
  else closeJobs();
  if (!jobs && keyOf(state) !== drawn) begin(restored);
  else if (!jobs && restored && !state.show) window.scrollTo(0, state.scroll);
  if (state.show && !jobs) openShown();
  else closeView();
}

/** Another collection: what was deleted or chosen in the one before is over. */
function enter(collection) {
  finish();
  unchoose();
  closeJobs(); // their list is of one collection
  goTo(collection);
  showPlace();
}

function begin(restored) {
  drawn = keyOf(state);
  const query = queryOf(state);
  const asked = Boolean(query.q || query.like.length || query.file);
  running?.abort();
  running = null;
  notice.clear();
  if (state.lost) notice.tell(words("gone"));
  state.lost = false; // told once
  byId("select").hidden = query.target === "texts";
  if (!asked && query.target === "texts") {
    listing = new Listing(drawn, null, false);
    byId("count").textContent = "";
    inviteTexts(again);
    return;
  }
  const known = restored ? keptOf(drawn) : null;
  listing = known ?? new Listing(drawn, asked ? found(query) : newest(query.filter), asked);
  keep(listing);
  if (!known) return advance(true, restored ? state : { count: 0, scroll: 0 });
  draw(true);
  window.scrollTo(0, state.scroll);
  reach();
}

function again() {
  drawn = null;
  if (state.view === "jobs") redrawJobs();
  else show();
}

async function advance(fresh, { count, scroll } = { count: 0 }) {
  const mine = (running = new AbortController());
  results.ariaBusy = "true";
  try {
    do await listing.more(mine.signal, count);
    while (mine === running && listing.hits.length < count && !listing.done);
    if (mine !== running) return;
    if (fresh) window.scrollTo(0, 0);
    draw(fresh);
    if (scroll) window.scrollTo(0, scroll);
  } catch (problem) {
    if (mine === running && problem.name !== "AbortError") refused(problem, fresh);
  } finally {
    if (mine === running) {
      running = null;
      results.ariaBusy = "false";
      reach();
    }
  }
}

function draw(fresh) {
  const { hits, done } = listing;
  if (hits.length) drawHits(hits, state, { done, kept: !fresh });
  else if (done && queryOf(state).filter) drawMessage(words("no_hits_title"), words("no_hits_filter"));
  else if (done) drawNothing(listing.last?.answer, state.target, { again, refresh });
  showTally(listing, state);
  if (state.show) openShown();
}

function refused(problem, fresh) {
  const final = problem.status && problem.status < 500 && problem.status !== 429;
  if (final && !fresh) {
    listing.done = true; // the server gives no more; what is shown stays
    draw(false);
    return;
  }
  listing.feed = null;
  notice.tellProblem(problem, again);
  if (final) {
    listing = new Listing(drawn, null, false);
    clear();
    byId("count").textContent = "";
  }
}

async function openShown() {
  const wanted = state.show;
  const { hits } = listing;
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

/** There are new pictures. Until `all` have come, what is shown stays, unless that is nothing. */
function refresh(all) {
  forgetAll();
  if (!listing.hits.length || (all && !listing.asked && scrollY < 400 && state.view !== "jobs")) again();
  else keep(listing);
}

function focusOn(id) {
  const grid = currentGrid();
  grid?.focus(listing.hits.findIndex((hit) => hit.id === id));
}

function closed() {
  if (!state.show || byId("view").open) return;
  const { show: id, opened } = state;
  if (opened) {
    returning = id;
    history.back();
  } else {
    go({ show: null }, { push: false });
    focusOn(id);
  }
}

function step(by) {
  const { hits } = listing;
  const at = hits.findIndex((hit) => hit.id === state.show);
  const next = at < 0 ? null : hits[at + by];
  if (next) go({ show: next.id, opened: state.opened }, { push: false });
  if (at + by > hits.length - 10) reach(true);
}

function removed(ids) {
  const { hits } = listing;
  const shown = hits.findIndex((hit) => hit.id === state.show);
  const at = ids.includes(state.show) ? (hits[shown + 1] ?? hits[shown - 1]) : null;
  const focused = currentGrid()?.focused ?? -1;
  if (at) go({ show: at.id, opened: state.opened }, { push: false });
  else if (ids.includes(state.show)) byId("view").close();
  unchoose(ids);
  remove(ids);
  if (!state.show && focused >= 0) currentGrid()?.focus(Math.min(focused, listing.hits.length - 1));
}

function like(ids) {
  if (!ids.length) return;
  unchoose();
  typing = 0;
  const target = "images";
  go({ like: ids.slice(0, MOST_LIKE), q: "", picture: null, show: null, view: "results", target });
}

function changed(image) {
  changeEverywhere(image);
  redraw([image.id]);
}

function typed(q) {
  if (q.trim() === state.q.trim() && state.view === "results") return;
  const push = !typing || Date.now() - typing > REST || state.view === "jobs";
  typing = Date.now();
  go({ q, show: null, view: "results" }, { push });
}

function weighed(weight) {
  if (weight === state.weight) return;
  const push = !typing || Date.now() - typing > REST;
  typing = Date.now();
  go({ weight, show: null }, { push });
}

function searchBy(change) {
  typing = 0;
  box.cancel();
  go({ q: "", like: [], picture: null, show: null, view: "results", ...change });
}

function follow(event) {
  if (event.ctrlKey || event.metaKey || event.button) return;
  const cell = event.target.closest(".cell");
  const { hits } = listing;
  const at = cell ? hits.findIndex((hit) => hit.id === cell.querySelector("a").dataset.id) : -1;
  if (at >= 0 && (event.shiftKey || isChoosing() || event.target.closest(".pick"))) {
    event.preventDefault();
    toggle(hits, at, event.shiftKey);
    return;
  }
  const link = event.target.closest("a.tile, .list a, #home, #jobs-link");
  if (!link || event.shiftKey) return;
  event.preventDefault();
  typing = 0;
  if (link.dataset.id) go({ show: link.dataset.id, opened: true });
  else {
    keepPlace();
    history.pushState({}, "", link.href);
    state = readState();
    show();
    window.scrollTo(0, 0);
  }
}

/** Remember in the history entry how far down the page is, so that Back comes to the same place. */
function keepPlace() {
  clearTimeout(scrolling);
  if (state.view === "jobs" || running) return;
  Object.assign(state, { scroll: scrollY, count: listing.hits.length });
  writeState(state, false);
}

function reach(near = byId("end").getBoundingClientRect().top < innerHeight + NEAR) {
  if (near && state.view !== "jobs" && listing.feed && listing.begun && !running && !listing.done) advance(false);
}

function moveTo(collection) {
  typing = 0;
  box.cancel();
  go({ collection, like: [], show: null });
  window.scrollTo(0, 0);
}

const keys = {
  search: () => (byId("box").focus(), byId("box").select(), true),
  help: () => (byId("help").showModal(), true),
  undo: () => (takeBack(), true),
  escape: (at) => {
    if (isChoosing()) unchoose();
    else if (at.id === "box") at.blur();
    else return false;
    return true;
  },
  enterGrid: () => (currentGrid()?.focus(0, { preventScroll: true }), true),
  move(key, range) {
    const grid = currentGrid();
    const from = grid.focused;
    const to = grid.beside(from, key);
    if (range && !isChoosing()) toggle(listing.hits, from);
    if (range) toggle(listing.hits, to, true);
    if (to === from && key === "ArrowUp") window.scrollTo(0, 0);
    grid.focus(to);
    return true;
  },
  choose: (id, range) => (toggle(listing.hits, listing.hits.findIndex((hit) => hit.id === id), range), true),
  chooseAll: () => (chooseAll(listing.hits), true),
  like: (id) => (like([id]), true),
  remove(id) {
    const ids = chosenHits().map((hit) => hit.id);
    if (!ids.length && id) ids.push(id);
    removed(ids);
    return ids.length > 0;
  },
};

history.scrollRestoration = "manual";
speak(state);
const box = watchBox({
  typed,
  settled: () => (typing = 0),
  pictured: ({ id, collection }) => searchBy({ like: [id], collection }),
  unpictured: () => go({ like: [], picture: null }),
  weighed,
});
watchDrops({
  searched: (file) => searchBy({ picture: remember(file) }),
  pictured: ({ id, collection }) => go({ like: [id], collection, picture: null, show: null, view: "results" }),
  added: (gathered) => upload(gathered, refresh),
  adds: () => state.target === "images" && listing.done && !listing.hits.length && !listing.last?.answer?.searched && !state.only.length,
});
watchFilter({ current: () => state, changed: (only) => go({ only, show: null, view: "results" }) });
watchView({ closed, stepped: step, alike: (id) => like([id]), removed: (id) => removed([id]), undone: takeBack, changed });
watchChoice({
  changed: mark,
  act: (action) => {
    const hits = chosenHits();
    if (action === "like") like(hits.map(({ id }) => id));
    else if (action === "remove") removed(hits.map(({ id }) => id));
    else if (action === "tag") beginTagging(hits, changed);
  },
});
watchRemoval({
  changed() {
    if (!listing.begun) return;
    draw(true);
    reach();
  },
  returned(ids) {
    const id = ids.at(-1); // what went last is looked for first
    if (state.show) go({ show: id, opened: state.opened }, { push: false });
    else focusOn(id);
  },
});
watchToast();
watchSources(refresh);
watchCollections({ went: moveTo, dropped: forgetAll });
watchSession();
watchKeys(keys);
byId("target").addEventListener("change", (event) => go({ target: event.target.value }));
byId("language").addEventListener("click", () => {
  switchLanguage();
  speak(state);
  again();
});
document.addEventListener("click", follow);
window.addEventListener("popstate", () => {
  state = readState();
  typing = 0;
  box.cancel();
  show({ restored: true });
  if (returning && !state.show) focusOn(returning);
  returning = null;
});
window.addEventListener(
  "scroll",
  () => {
    clearTimeout(scrolling);
    scrolling = setTimeout(keepPlace, SETTLED);
    reach();
  },
  { passive: true },
);
showQuery(queryOf(state), state.q);
document.documentElement.dataset.drawn = ""; // until now what words and pictures widen was not shown, so nothing moves
await letIn(); // who it is says which collections there are
settle(boundTo());
state = readState();
writeState(state, false);
show({ restored: true });
if (matchMedia("(pointer: fine)").matches && !state.show && state.view !== "jobs") byId("box").focus();
notice.checkReady(again);
lookAround();
