// A grid of any length that keeps only the cells near the window in the document.
// grid_layout.js computes the places. The grid has its full height from the start, so scrolling never jumps.

import { make } from "./dom.js";
import { addRows, clampRatio, findRowAt, findRowOf } from "./grid_layout.js";

const CAPTION_HEIGHTS = { name: 30, both: 48 }; // px below a picture: for a name, or for a name and a second line
const LINE_HEIGHT = 56; // px
const MARGIN_WINDOWS = 1; // also drawn above and below the window

export class Grid {
  #cells = new Map(); // index -> element
  #rows = [];
  #ratios = [];
  #items = [];
  #isComplete = false;
  #current = 0; // the index that Tab reaches
  #animationFrame = 0;
  #size = { width: 0 };
  #captionHeight = CAPTION_HEIGHTS.name; // does not change while the list grows, so that nothing moves
  #line = null; // {at, element}: an element across the grid, above the item `at`
  #closed = new AbortController();
  #resizeObserver;

  /** `makeCell(item)` creates the element of an item: a `li` with an `a`; `hasSecondLine(item)`: below its name. */
  constructor(parent, { makeCell, hasSecondLine }) {
    Object.assign(this, { makeCell, hasSecondLine });
    this.list = make("ul", { className: "grid", role: "list" });
    parent.replaceChildren(this.list);
    const signal = this.#closed.signal;
    window.addEventListener("scroll", () => this.#drawSoon(), { passive: true, signal });
    this.list.addEventListener("focusin", (event) => this.#handleFocus(event.target.closest(".cell")), { signal });
    this.#resizeObserver = new ResizeObserver(() => this.#handleResize());
    this.#resizeObserver.observe(this.list);
  }

  close() {
    this.#closed.abort();
    this.#resizeObserver.disconnect();
    cancelAnimationFrame(this.#animationFrame);
  }

  get length() {
    return this.#items.length;
  }

  get focusedIndex() {
    return this.list.contains(document.activeElement) ? this.#current : -1;
  }

  /** Show these items. With `keepCells` they begin with the items shown so far, and a `line` is not above one of those. */
  show(items, isComplete, { keepCells = false, line = null } = {}) {
    this.#items = items;
    this.#isComplete = isComplete;
    if (!keepCells) {
      this.#cells.forEach((cell) => cell.remove());
      this.#cells.clear();
      this.#line?.element.remove();
      this.#rows = [];
      this.#ratios = [];
      this.#captionHeight = CAPTION_HEIGHTS[items.some(this.hasSecondLine) ? "both" : "name"];
      this.list.style.setProperty("--caption", `${this.#captionHeight}px`);
      this.#current = Math.min(this.#current, Math.max(items.length - 1, 0));
    }
    this.#line = line;
    for (let n = this.#ratios.length; n < items.length; n++) this.#ratios.push(clampRatio(items[n].image));
    this.#addRows();
    this.#draw();
  }

  /** Draw one cell again, because the record of its picture has changed. */
  redraw(n) {
    const old = this.#cells.get(n);
    if (!old) return;
    const replacement = this.#place(this.makeCell(this.#items[n]), n);
    const hadFocus = old.contains(document.activeElement);
    old.replaceWith(replacement);
    this.#cells.set(n, replacement);
    if (hadFocus) replacement.querySelector("a").focus({ preventScroll: true });
  }

  focus(n, options) {
    if (n < 0 || n >= this.#items.length || !this.#rows.length) return;
    const last = this.#rows.at(-1).end - 1;
    this.#setCurrent(Math.min(n, last));
    this.#draw();
    const link = this.#cells.get(this.#current)?.querySelector("a");
    link?.focus({ preventScroll: true });
    if (!options?.preventScroll) link?.closest(".cell").scrollIntoView({ block: "nearest" });
  }

  /** The index that an arrow key leads to from `n`. */
  findNeighbour(n, key) {
    if (key === "ArrowLeft") return Math.max(n - 1, 0);
    if (key === "ArrowRight") return Math.min(n + 1, this.#items.length - 1);
    if (key === "Home") return 0;
    if (key === "End") return this.#items.length - 1;
    const current = findRowOf(this.#rows, n);
    const row = this.#rows[current + (key === "ArrowUp" ? -1 : 1)];
    if (!row) return n;
    const middle = this.#left(n) + this.#width(n) / 2;
    let best = row.first;
    for (let m = row.first; m < row.end; m++) if (this.#left(m) <= middle) best = m;
    return best;
  }

  #handleResize() {
    if (!this.list.clientWidth || this.list.clientWidth === this.#size.width) return; // 0 while hidden
    const top = this.list.getBoundingClientRect().top;
    const firstVisible = top < 0 ? this.#rows[findRowAt(this.#rows, -top, this.#captionHeight)]?.first : undefined;
    this.#rows = [];
    this.#addRows();
    this.#cells.forEach((cell, n) => this.#place(cell, n));
    if (firstVisible !== undefined) { // keep it at the top of the window
      const row = this.#rows[findRowOf(this.#rows, firstVisible)];
      window.scrollTo(0, window.scrollY + this.list.getBoundingClientRect().top + row.top);
    }
    this.#draw();
  }

  #addRows() {
    const isNarrow = innerWidth <= 760;
    const gap = isNarrow ? 10 : 14;
    const height = isNarrow ? 150 : innerWidth >= 1800 ? 230 : 190;
    this.#size = { width: this.list.clientWidth, height, gap, below: this.#captionHeight + gap, done: this.#isComplete };
    Object.assign(this.#size, this.#line && { lineAt: this.#line.at, lineHeight: LINE_HEIGHT });
    addRows(this.#rows, this.#ratios, this.#size);
    const last = this.#rows.at(-1);
    this.list.style.height = `${last ? last.top + last.height + this.#captionHeight : 0}px`;
  }

  #drawSoon() {
    this.#animationFrame ||= requestAnimationFrame(() => {
      this.#animationFrame = 0;
      this.#draw();
    });
  }

  #draw() {
    const rows = this.#rows;
    const top = -this.list.getBoundingClientRect().top;
    const from = rows[findRowAt(rows, top - MARGIN_WINDOWS * innerHeight, this.#captionHeight)]?.first ?? 0;
    const to = (rows[findRowAt(rows, top + (1 + MARGIN_WINDOWS) * innerHeight, this.#captionHeight)] ?? rows.at(-1))?.end ?? 0;
    for (const [n, cell] of this.#cells) {
      if ((n >= from && n < to) || n === this.#current) continue;
      cell.remove();
      this.#cells.delete(n);
    }
    const wanted = [];
    for (let n = from; n < to; n++) wanted.push(n);
    const end = rows.at(-1)?.end ?? 0;
    if (this.#current < end && (this.#current < from || this.#current >= to)) wanted.push(this.#current);
    wanted.sort((a, b) => b - a);
    let after = null; // goes from the end, so that each cell has an element to stand before
    for (const n of wanted) {
      let cell = this.#cells.get(n);
      if (!cell) {
        cell = this.#place(this.makeCell(this.#items[n]), n);
        this.#cells.set(n, cell);
        this.list.insertBefore(cell, after);
      }
      after = cell;
    }
    this.#placeLine();
  }

  #placeLine() {
    if (!this.#line) return;
    const { at, element } = this.#line;
    const cell = this.#cells.get(at);
    if (!cell) return element.remove();
    if (cell.previousSibling !== element) this.list.insertBefore(element, cell);
    const style = { top: this.#rows[findRowOf(this.#rows, at)].top - LINE_HEIGHT, height: LINE_HEIGHT };
    for (const [name, value] of Object.entries(style)) element.style[name] = `${value.toFixed(2)}px`;
  }

  #place(cell, n) {
    if (n >= (this.#rows.at(-1)?.end ?? 0)) return cell;
    const row = this.#rows[findRowOf(this.#rows, n)];
    const style = { left: this.#left(n), top: row.top, width: this.#width(n), height: row.height + this.#captionHeight };
    for (const [name, value] of Object.entries(style)) cell.style[name] = `${value.toFixed(2)}px`;
    cell.ariaSetSize = this.#isComplete ? this.#items.length : -1;
    cell.ariaPosInSet = n + 1;
    for (const link of cell.querySelectorAll("a")) link.tabIndex = n === this.#current ? 0 : -1;
    return cell;
  }

  #left(n) {
    const row = this.#rows[findRowOf(this.#rows, n)];
    let left = 0;
    for (let m = row.first; m < n; m++) left += this.#width(m) + this.#size.gap;
    return left;
  }

  #width(n) {
    return this.#ratios[n] * this.#rows[findRowOf(this.#rows, n)].height;
  }

  #handleFocus(cell) {
    if (cell) this.#setCurrent(Number(cell.ariaPosInSet) - 1);
  }

  #setCurrent(n) {
    for (const at of [this.#current, n]) {
      const link = this.#cells.get(at)?.querySelector("a");
      if (link) link.tabIndex = at === n ? 0 : -1;
    }
    this.#current = n;
  }
}
