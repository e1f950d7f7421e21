// Connects the parts of the page: every action changes the state and so the address, and `show` draws the state.
// One search runs at a time; the page drops the answer of an earlier one.

import { getImage } from "./api/client.js";
import { allowedCollections, requireSession, watchSession } from "./api/session.js";
import { updateActivity, watchActivity } from "./components/activity_badge.js";
import { showArrangement, watchArrangement } from "./components/arrangement.js";
import { clearBanner, showBanner, showProblem, waitUntilReady } from "./components/banner.js";
import { copyText } from "./components/clipboard.js";
import { byId, watchDialogs } from "./components/dom.js";
import { watchDrops } from "./components/drop_zone.js";
import { showExamples } from "./components/examples.js";
import { canExplain, holdExplanation, releaseExplanation } from "./components/explanation.js";
import { showFirstSteps, watchFirstSteps } from "./components/first_steps.js";
import { watchFilter } from "./components/filter_dialog.js";
import { watchKeyboard } from "./components/keyboard.js";
import { hideModelNotice, loadModel, showModelNotice, showWarnings, watchModelNotice } from "./components/notices.js";
import { loadSearchedPicture, showResultCount, updateSearchedPicture } from "./components/result_count.js";
import { showQuery, watchSearchBox } from "./components/search_box.js";
import { downloadSelected, openTagDialog, watchSelectionBar } from "./components/selection_bar.js";
import { endToast, pressToastButton, watchToast } from "./components/toast.js";
import { showUnreadable } from "./components/unreadable.js";
import { showUnshared, watchUnshared } from "./components/unshared.js";
import { switchLanguage, translate } from "./i18n/i18n.js";
import { currentCollection, setCurrentCollection, setHomeCollection } from "./state/collection_context.js";
import { deleteWithUndo, watchDeletions } from "./state/deletions.js";
import { pageNewest, pageSearch } from "./state/pager.js";
import { cacheResults, clearCache, findCached, replaceImageInCache, ResultList } from "./state/result_list.js";
import { deselect, isSelecting, onSelectionChange, selectAll, selectedHits, toggleSelected } from "./state/selection.js";
import { parseQuery } from "./state/query.js";
import { getQuery, makeSearchKey, MAX_LIKE, readState, rememberFile, writeState } from "./state/url_state.js";
import { showCollectionName, watchCollections } from "./views/collections.js";
import { watchEvaluation } from "./views/evaluation.js";
import { watchTeaching } from "./views/teaching.js";
import { closeDetail, openDetail, watchDetail } from "./views/detail.js";
import { closeDuplicates, openDuplicates, redrawDuplicates } from "./views/duplicates.js";
import { showEmptyState, showNoFilterHits, showNoHitsOfTime, showTextsIntro } from "./views/empty_state.js";
import { showHeader, translatePage } from "./views/header.js";
import { closeJobs, openJobs, redrawJobs } from "./views/jobs.js";
import { openMoveDialog } from "./views/move.js";
import { clearResults, currentGrid, redrawTile, showHits, showSelected } from "./views/results.js";
import { watchSavedSearches } from "./views/saved_searches.js";
import { watchSources } from "./views/sources.js";
import { resumeUploads, uploadFiles } from "./views/upload.js";

const TYPING_PAUSE_MS = 2000; // words typed after it make a new history entry
const NO_FEEDBACK = { liked: [], unliked: [], isTimeOff: false };
const LOAD_AHEAD = 1200; // px above the end of the page at which the next results load
const SCROLL_PAUSE_MS = 150; // after which the page remembers its scroll position

const store = {
  state: readState(), // what the address and the history entry say
  results: new ResultList(null), // of the search that is shown
  shownKey: null, // the search key of these results, null to search again
  request: null, // the AbortController of the search that runs
  typedAt: 0, // when the user last changed the words or the weight, 0 once the change is settled
  scrollTimer: 0,
  pictureToFocus: null, // after Back has closed its detail
};

// State, address and history

function changeState(change, { isNewEntry = true } = {}) {
  if (isNewEntry) rememberScroll();
  const position = isNewEntry ? { scroll: 0, count: 0 } : {};
  const state = { ...store.state, ...position, isPictureLost: false, depth: 0, ...change };
  if (change.show) Object.assign(state, { scroll: scrollY, count: store.results.hits.length });
  store.state = state;
  writeState(state, isNewEntry);
  show();
}

function show({ isRestored = false } = {}) {
  const { state } = store;
  const isResults = state.view === "results";
  if (state.collection !== currentCollection()) enterCollection(state.collection);
  showQuery(getQuery(state), state.q);
  showHeader(state);
  if (state.view === "jobs") openJobs();
  else closeJobs();
  if (state.view === "duplicates") openDuplicates();
  else closeDuplicates();
  if (isResults && makeSearchKey(state) !== store.shownKey) startSearch(isRestored);
  else if (isResults && isRestored && !state.show) window.scrollTo(0, state.scroll);
  if (state.show && state.view !== "jobs") showDetail();
  else closeDetail();
}

/** Commit the deletions and drop the selection of the previous collection. */
function enterCollection(collection) {
  endToast();
  deselect();
  closeJobs(); // the list of jobs belongs to one collection
  closeDuplicates();
  setCurrentCollection(collection);
  showCollectionName();
  if (store.shownKey) updateActivity();
}

/** The words and the filter of the search go along, but not to a new collection. */
function openCollection(collection, isNew = false) {
  stopTyping();
  const conditions = store.state.conditions.filter(([kind]) => kind !== "job"); // a job belongs to one collection
  const search = isNew ? { q: "", conditions: [], picture: null, target: "images", view: "results" } : { conditions };
  changeState({ collection, like: [], ...NO_FEEDBACK, show: null, ...search });
  window.scrollTo(0, 0);
}

/** Store the scroll position in the history entry, so that Back returns to it. */
function rememberScroll() {
  clearTimeout(store.scrollTimer);
  if (store.state.view !== "results" || store.request) return;
  Object.assign(store.state, { scroll: scrollY, count: store.results.hits.length });
  writeState(store.state, false);
}

function handleScroll() {
  clearTimeout(store.scrollTimer);
  store.scrollTimer = setTimeout(rememberScroll, SCROLL_PAUSE_MS);
  loadMoreIfNear();
}

function handleHistory() {
  store.state = readState();
  stopTyping();
  show({ isRestored: true });
  if (store.pictureToFocus && !store.state.show) focusPicture(store.pictureToFocus);
  store.pictureToFocus = null;
}

function handleClick(event) {
  if (event.ctrlKey || event.metaKey || event.button) return;
  const id = event.target.closest(".cell")?.querySelector("a").dataset.id;
  const index = id ? findHit(id) : -1;
  if (index >= 0 && (event.shiftKey || isSelecting() || event.target.closest(".pick"))) {
    event.preventDefault();
    toggleSelected(store.results.hits, index, event.shiftKey);
    return;
  }
  const link = event.target.closest(
    "a.tile, a.to-picture, .list a, .chips a, a.to-results, #home, #jobs-link, #duplicates-link, #labels-link, #pictures-link",
  );
  if (!link || event.shiftKey) return;
  event.preventDefault();
  store.typedAt = 0;
  if (link.dataset.id) return openPicture(link.dataset.id);
  if (link.dataset.target) return changeState({ target: link.dataset.target, show: null, view: "results" }); // keeps the query
  rememberScroll();
  history.pushState({}, "", link.href);
  store.state = readState();
  show();
  window.scrollTo(0, 0);
}

/** The detail that an address opened has no results behind it to go back to. */
function openPicture(id) {
  const { show, depth } = store.state;
  changeState({ show: id, depth: show && !depth ? 0 : depth + 1 });
}

// Search and results

function startSearch(isRestored) {
  const { state } = store;
  const query = getQuery(state);
  const key = (store.shownKey = makeSearchKey(state));
  const isSearch = Boolean(query.q || query.like.length || query.file);
  store.request?.abort();
  store.request = null;
  clearBanner();
  if (state.isPictureLost) showBanner(translate("picture_lost"));
  state.isPictureLost = false; // the banner appears once
  byId("select").hidden = query.target === "texts";
  if (!isSearch && query.target === "texts") {
    store.results = new ResultList(key);
    byId("count").textContent = "";
    showArrangement(store.results, state);
    showExamples(store.results, state);
    showFirstSteps(store.results, state);
    showWarnings(null);
    showTextsIntro(searchAgain);
    return;
  }
  const cached = isRestored ? findCached(key) : null;
  store.results = cached ?? new ResultList(key, isSearch ? pageSearch(query) : pageNewest(query), isSearch);
  cacheResults(store.results);
  if (!cached) return loadResults(true, isRestored ? state : { count: 0, scroll: 0 });
  showResults(true);
  window.scrollTo(0, state.scroll);
  loadMoreIfNear();
}

function searchAgain() {
  store.shownKey = null;
  if (store.state.view === "jobs") redrawJobs();
  else if (store.state.view === "duplicates") redrawDuplicates();
  else show();
}

/** Load the next results, at least `count` in total, and scroll to where the page was. */
async function loadResults(isFirst, { count, scroll } = { count: 0 }) {
  const { results } = store;
  const request = (store.request = new AbortController());
  byId("results").ariaBusy = "true";
  try {
    const loaded = Promise.all([loadModel(), loadSearchedPicture(store.state)]); // their texts appear with the first results
    do await results.loadMore(request.signal, count);
    while (request === store.request && results.hits.length < count && !results.isDone);
    await loaded;
    if (request !== store.request) return;
    if (isFirst) window.scrollTo(0, 0);
    showResults(isFirst);
    if (scroll) window.scrollTo(0, scroll);
  } catch (problem) {
    if (request === store.request && problem.name !== "AbortError") handleRefusal(problem, isFirst);
  } finally {
    if (request === store.request) {
      store.request = null;
      byId("results").ariaBusy = "false";
      loadMoreIfNear();
    }
  }
}

function loadMoreIfNear(isNear = byId("end").getBoundingClientRect().top < innerHeight + LOAD_AHEAD) {
  const { results, state, request } = store;
  const canLoad = results.loadPage && results.isStarted && !results.isDone;
  if (isNear && canLoad && state.view === "results" && !request) loadResults(false);
}

function showResults(isFirst) {
  const { results, state } = store;
  const { hits, isDone } = results;
  if (hits.length) showModelNotice();
  else hideModelNotice(); // the empty page says the same
  const { verdict } = results.lastPage?.answer ?? {};
  if (hits.length) showHits(hits, state, { isComplete: isDone, isContinued: !isFirst, verdict });
  else if (isDone && results.time) showNoHitsOfTime(results.time, () => changeState({ isTimeOff: true }));
  else if (isDone && getQuery(state).filter) showNoFilterHits(() => changeFilter([]));
  else if (isDone) showEmptyState(results.lastPage?.answer, state.target, { searchAgain, refresh });
  showResultCount(results, state);
  showArrangement(results, state);
  showExamples(results, state);
  showFirstSteps(results, state);
  showUnshared(getQuery(state).file);
  showUnreadable(results);
  showWarnings(results.lastPage?.answer);
  if (state.show) showDetail();
}

function handleRefusal(problem, isFirst) {
  const isFinal = problem.status && problem.status < 500 && problem.status !== 429;
  if (isFinal && !isFirst) {
    store.results.isDone = true; // the server gives no more results; the page keeps those it has
    showResults(false);
    return;
  }
  store.results.loadPage = null;
  showProblem(problem, searchAgain);
  if (isFinal) {
    store.results = new ResultList(store.shownKey);
    clearResults();
    showResultCount(store.results, store.state);
    showArrangement(store.results, store.state);
    showUnshared(null);
    showWarnings(null);
  }
}

/** New pictures have arrived. Search again if the page is empty, or if it is at the top of the newest and all are in. */
function refresh(isComplete) {
  const { results, state } = store;
  const isAtNewest = !results.isSearch && scrollY < 400 && state.view === "results";
  clearCache();
  if (!results.hits.length || (isComplete && isAtNewest)) searchAgain();
  else cacheResults(results);
}

function findHit(id) {
  return store.results.hits.findIndex((hit) => hit.id === id);
}

function focusPicture(id) {
  currentGrid()?.focus(findHit(id));
}

// The picture that is shown large

async function showDetail() {
  const id = store.state.show;
  const { hits } = store.results;
  const index = findHit(id);
  if (index >= 0) {
    openDetail(hits[index], { previous: index > 0, next: index + 1 < hits.length });
    return;
  }
  try {
    const image = await getImage(id);
    if (store.state.show !== id) return;
    if (findHit(id) >= 0) showDetail(); // it has become a hit meanwhile, which tells more
    else openDetail({ id, image }, { previous: false, next: false });
  } catch (problem) {
    if (store.state.show !== id) return;
    changeState({ show: null }, { isNewEntry: false });
    showProblem(problem, searchAgain);
  }
}

function handleDetailClose() {
  const { show: id, depth } = store.state;
  if (!id || byId("detail").open) return;
  if (depth) {
    store.pictureToFocus = id;
    history.go(-depth);
  } else {
    changeState({ show: null }, { isNewEntry: false });
    focusPicture(id);
  }
}

function replaceDetail(id) {
  changeState({ show: id, depth: store.state.depth }, { isNewEntry: false });
}

function stepDetail(by) {
  const { hits } = store.results;
  const index = findHit(store.state.show);
  const next = index < 0 ? null : hits[index + by];
  if (next) replaceDetail(next.id);
  if (index + by > hits.length - 10) loadMoreIfNear(true);
}

// Actions of the user

/** `removeAll`, if given, deletes all of them on the server. */
function deletePictures(ids, removeAll = null) {
  const { hits } = store.results;
  const isShown = ids.includes(store.state.show);
  const index = findHit(store.state.show);
  const neighbour = isShown && index >= 0 ? (hits[index + 1] ?? hits[index - 1]) : null;
  const focused = currentGrid()?.focusedIndex ?? -1;
  if (neighbour) replaceDetail(neighbour.id);
  else if (isShown) byId("detail").close();
  deselect(ids);
  deleteWithUndo(ids, removeAll, removeAll !== null);
  if (!store.state.show && focused >= 0) currentGrid()?.focus(Math.min(focused, store.results.hits.length - 1));
}

function handleDeletion() {
  redrawDuplicates();
  if (!store.results.isStarted) return;
  showResults(true);
  loadMoreIfNear();
}

function handleUndo(ids) {
  const id = ids.at(-1); // the picture that the user deleted last
  if (store.state.view === "duplicates") return;
  if (store.state.show) replaceDetail(id);
  else focusPicture(id);
}

/** The other collection has changed too, so the page forgets its results. */
function handleMoved(ids) {
  deselect(ids);
  clearCache();
  if (store.results.isStarted) cacheResults(store.results);
  handleDeletion();
}

function searchLike(ids) {
  if (!ids.length) return;
  deselect();
  store.typedAt = 0;
  const like = ids.slice(0, MAX_LIKE);
  changeState({ like, q: "", picture: null, ...NO_FEEDBACK, show: null, view: "results", target: "images" });
}

/** The user says of a hit that it is what the search means ("liked"), or that it is not ("unliked"). */
function judgePicture(kind, id) {
  const { liked, unliked } = store.state;
  const others = { liked: liked.filter((one) => one !== id), unliked: unliked.filter((one) => one !== id) };
  changeState({ ...others, [kind]: [...others[kind], id].slice(-MAX_LIKE), show: null });
  window.scrollTo(0, 0);
}

/** Search by a picture alone. `change`: {picture} or {like, collection}. */
function searchByPicture(change) {
  stopTyping();
  changeState({ q: "", like: [], picture: null, ...NO_FEEDBACK, show: null, view: "results", ...change });
}

/** The file of the search is now the picture `id`, so the address can hold the search. */
function addSearchedFile({ id }) {
  clearCache();
  changeState({ like: [...new Set([...store.state.like, id])], picture: null });
}

function handleImageChange(image) {
  replaceImageInCache(image);
  updateSearchedPicture(image);
  redrawTile(image.id);
}

function handleTyping(q) {
  const { state } = store;
  if (q.trim() !== state.q.trim() || state.view !== "results") changeWhileTyping({ q, ...NO_FEEDBACK, show: null, view: "results" });
}

function handleWeight(weight) {
  if (weight !== store.state.weight) changeWhileTyping({ weight, show: null });
}

/** Make a new history entry only after a pause, not for every letter. */
function changeWhileTyping(change) {
  const isNewEntry = Date.now() - store.typedAt > TYPING_PAUSE_MS || store.state.view !== "results";
  store.typedAt = Date.now();
  changeState(change, { isNewEntry });
}

/** Forget words that the search box has not reported yet. */
function stopTyping() {
  store.typedAt = 0;
  cancelTyping();
}

/** The search that is shown, if the server can keep it: one for pictures, without a dropped file. */
function currentSearch() {
  const query = getQuery(withoutTime(store.state, store.results.time));
  const isKept = query.target === "images" && !query.file && (parseQuery(query.q).words || query.like.length);
  return isKept ? { query, hits: store.results.hits } : null;
}

/** The state with the days that its words of time mean in place of these words: a saved search takes words as words. */
function withoutTime(state, time) {
  if (!time) return state;
  const days = [["from", time.from], ["to", time.to]].filter(([, day]) => day);
  return { ...state, q: state.q.replace(time.text, " ").replace(/\s+/g, " ").trim(), conditions: [...state.conditions, ...days] };
}

/** Whether there is nothing to search: the collection has no pictures. */
function isCollectionEmpty() {
  const { state, results } = store;
  const isEmptyList = results.isDone && !results.hits.length && !results.lastPage?.answer?.searched;
  return state.target === "images" && isEmptyList && !state.conditions.length && !results.time;
}

function runSelectionAction(action) {
  const ids = selectedHits().map(({ id }) => id);
  if (action === "like") searchLike(ids);
  else if (action === "remove") deletePictures(ids);
  else if (action === "tag") openTagDialog(handleImageChange);
  else if (action === "move") openMoveDialog(ids, handleMoved);
  else if (action === "download") downloadSelected();
  else if (action === "all") keyActions.selectAll();
}

const keyActions = {
  focusSearch: () => (byId("box").focus(), byId("box").select(), true),
  showHelp: () => (byId("help").showModal(), true),
  undo: () => (pressToastButton(), true),
  escape(target) {
    if (isSelecting()) deselect();
    else if (target.id === "box") target.blur();
    else return false;
    return true;
  },
  focusGrid: () => (currentGrid()?.focus(0, { preventScroll: true }), true),
  move(key, isRange) {
    const grid = currentGrid();
    const { hits } = store.results;
    const from = grid.focusedIndex;
    const to = grid.findNeighbour(from, key);
    if (isRange && !isSelecting()) toggleSelected(hits, from);
    if (isRange) toggleSelected(hits, to, true);
    if (to === from && key === "ArrowUp") window.scrollTo(0, 0);
    grid.focus(to);
    return true;
  },
  select: (id, isRange) => (toggleSelected(store.results.hits, findHit(id), isRange), true),
  selectAll() {
    const { results, state } = store;
    if (!currentGrid() || state.view !== "results") return false;
    selectAll(results.hits);
    return true;
  },
  why(tile) {
    if (!tile || !canExplain(getQuery(store.state))) return false;
    holdExplanation(tile, getQuery(store.state));
    return true;
  },
  endWhy: releaseExplanation,
  searchLike: (id) => (searchLike([id]), true),
  remove(id) {
    const ids = selectedHits().map((hit) => hit.id);
    if (!ids.length && id) ids.push(id);
    deletePictures(ids);
    return ids.length > 0;
  },
};

// Start

history.scrollRestoration = "manual";
translatePage(store.state);
const cancelTyping = watchSearchBox({
  onType: handleTyping,
  onSettle: () => (store.typedAt = 0),
  onPicture: ({ id, collection }) => searchByPicture({ like: [id], collection }),
  onRemovePictures: () => changeState({ like: [], picture: null }),
  onWeigh: handleWeight,
});
watchDrops({
  onSearch: (file) => searchByPicture({ picture: rememberFile(file) }),
  onPicture: ({ id, collection }) => changeState({ like: [id], collection, picture: null, show: null, view: "results" }),
  onAdd: (files) => uploadFiles(files, refresh),
  addsOnly: isCollectionEmpty,
});
const changeFilter = (conditions) => changeState({ conditions, show: null, view: "results" });
watchUnshared({ getFile: () => getQuery(store.state).file, onAdd: addSearchedFile });
watchArrangement({ getState: () => store.state, onChange: (change) => changeState({ ...change, show: null }) });
watchFilter({ getState: () => store.state, onChange: changeFilter });
watchDetail({
  getQuery: () => getQuery(store.state),
  onClose: handleDetailClose,
  onLike: (id) => searchLike([id]),
  onJudge: judgePicture,
  onStep: stepDetail,
  onShow: openPicture,
  onRemove: (id) => deletePictures([id]),
  onRemoveVideo: deletePictures,
  onUndo: pressToastButton,
  onChange: handleImageChange,
});
watchSelectionBar({ onAction: runSelectionAction });
onSelectionChange(showSelected);
watchDeletions({ onChange: handleDeletion, onUndo: handleUndo });
watchToast();
watchFirstSteps();
watchSources(refresh);
watchCollections({ onOpen: openCollection, onDelete: clearCache });
watchSavedSearches({ getSearch: currentSearch });
watchEvaluation();
watchTeaching(() => {
  clearCache();
  searchAgain();
});
watchSession();
watchKeyboard(keyActions);
watchDialogs();
byId("share").addEventListener("click", () => copyText(location.href, "link_copied"));
byId("menu").addEventListener("click", () => byId("menu").hidePopover());
watchModelNotice();
byId("language").addEventListener("click", () => {
  switchLanguage();
  translatePage(store.state);
  updateActivity();
  searchAgain();
});
document.addEventListener("click", handleClick);
window.addEventListener("popstate", handleHistory);
window.addEventListener("scroll", handleScroll, { passive: true });
showQuery(getQuery(store.state), store.state.q);
document.documentElement.dataset.ready = ""; // now that the header has its final width, the style makes it visible
await requireSession(); // the key decides which collection is the home
setHomeCollection(allowedCollections());
store.state = readState();
writeState(store.state, false);
show({ isRestored: true });
if (matchMedia("(pointer: fine)").matches && !store.state.show && store.state.view === "results") byId("box").focus();
waitUntilReady(searchAgain);
watchActivity();
resumeUploads(refresh);
