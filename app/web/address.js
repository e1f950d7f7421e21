// What the page shows, as its address: `?q=&target=&like=&show=`, so that Back works and a search can be sent on.
// A dropped picture has no address; it is kept here under a number that the history entry remembers.

const dropped = new Map();

export function remember(file) {
  dropped.set(dropped.size + 1, file);
  return dropped.size;
}

export function readState() {
  const asked = new URLSearchParams(location.search);
  const number = history.state?.picture ?? null;
  return {
    q: asked.get("q") ?? "",
    target: asked.get("target") === "texts" ? "texts" : "images",
    like: asked.get("like") || null,
    show: asked.get("show") || null,
    picture: dropped.has(number) ? number : null,
    lost: number !== null && !dropped.has(number),
    opened: history.state?.opened ?? false,
  };
}

export function queryOf(state) {
  const file = state.picture ? dropped.get(state.picture) : null;
  return { q: state.q.trim(), like: state.like, file, target: state.target };
}

export function keyOf(state) {
  return JSON.stringify([state.q.trim(), state.target, state.like, state.picture]);
}

export function hrefOf(state) {
  const said = new URLSearchParams();
  if (state.q.trim()) said.set("q", state.q);
  if (state.target !== "images") said.set("target", state.target);
  if (state.like) said.set("like", state.like);
  if (state.show) said.set("show", state.show);
  return said.size ? `?${said}` : "./";
}

export function writeState(state, push) {
  const kept = { picture: state.picture, opened: state.opened };
  history[push ? "pushState" : "replaceState"](kept, "", hrefOf(state));
}
