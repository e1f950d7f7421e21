// A grid of any length of which only what is near the window is in the document.
// Places come from layout.js; the page is as long as all of them from the start, so scrolling never jumps.

import { make } from "./dom.js";
import { addRows, ratioOf, rowAt, rowOf } from "./grid_layout.js";

const LINE = 30; // of words below a picture
const BEYOND = 1; // windows above and below that are drawn too

export class Grid {
  #cells = new Map(); // number of the place -> element
  #rows = [];
  #ratios = [];
  #items = [];
  #done = false;
  #current = 0; // the place that Tab reaches
  #frame = 0;
  #size = { width: 0 };
  #ending = new AbortController();
  #watching;

  /** `cellOf(item, n)` makes the element of a place: a `li` with an `a`. */
  constructor(place, cellOf) {
    this.cellOf = cellOf;
    this.box = make("ul", { className: "grid", role: "list" });
    place.replaceChildren(this.box);
    const signal = this.#ending.signal;
    window.addEventListener("scroll", () => this.#soon(), { passive: true, signal });
    this.box.addEventListener("focusin", (event) => this.#reached(event.target.closest(".cell")), { signal });
    this.#watching = new ResizeObserver(() => this.#resized());
    this.#watching.observe(this.box);
  }

  close() {
    this.#ending.abort();
    this.#watching.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  get length() {
    return this.#items.length;
  }

  get focused() {
    return this.box.contains(document.activeElement) ? this.#current : -1;
  }

  /** Show these items. Those that were shown before at their place stay as they are when `kept`. */
  show(items, done, kept = false) {
    this.#items = items;
    this.#done = done;
    if (!kept) {
      this.#cells.forEach((cell) => cell.remove());
      this.#cells.clear();
      this.#rows = [];
      this.#ratios = [];
      this.#current = Math.min(this.#current, Math.max(items.length - 1, 0));
    }
    for (let n = this.#ratios.length; n < items.length; n++) this.#ratios.push(ratioOf(items[n].image));
    this.#extend();
    this.#draw();
  }

  /** Draw one place anew, because what is known of its picture has changed. */
  redraw(n) {
    const old = this.#cells.get(n);
    if (!old) return;
    const fresh = this.#place(this.cellOf(this.#items[n], n), n);
    const focused = old.contains(document.activeElement);
    old.replaceWith(fresh);
    this.#cells.set(n, fresh);
    if (focused) fresh.querySelector("a").focus({ preventScroll: true });
  }

  focus(n, options) {
    if (n < 0 || n >= this.#items.length || !this.#rows.length) return;
    const laid = this.#rows.at(-1).end - 1;
    this.#point(Math.min(n, laid));
    this.#draw();
    const link = this.#cells.get(this.#current)?.querySelector("a");
    link?.focus({ preventScroll: true });
    if (!options?.preventScroll) link?.closest(".cell").scrollIntoView({ block: "nearest" });
  }

  /** The place that an arrow key leads to from `n`. */
  beside(n, key) {
    if (key === "ArrowLeft") return Math.max(n - 1, 0);
    if (key === "ArrowRight") return Math.min(n + 1, this.#items.length - 1);
    if (key === "Home") return 0;
    if (key === "End") return this.#items.length - 1;
    const at = rowOf(this.#rows, n);
    const row = this.#rows[at + (key === "ArrowUp" ? -1 : 1)];
    if (!row) return n;
    const middle = this.#left(n) + this.#width(n) / 2;
    let best = row.first;
    for (let m = row.first; m < row.end; m++) if (this.#left(m) <= middle) best = m;
    return best;
  }

  #resized() {
    if (!this.box.clientWidth || this.box.clientWidth === this.#size.width) return; // 0 while hidden
    const top = this.box.getBoundingClientRect().top;
    const seen = top < 0 ? this.#rows[rowAt(this.#rows, -top, LINE)]?.first : undefined; // stays where it is
    this.#rows = [];
    this.#extend();
    this.#cells.forEach((cell, n) => this.#place(cell, n));
    if (seen !== undefined) {
      window.scrollTo(0, window.scrollY + this.box.getBoundingClientRect().top + this.#rows[rowOf(this.#rows, seen)].top);
    }
    this.#draw();
  }

  #extend() {
    const narrow = innerWidth <= 760;
    const gap = narrow ? 10 : 14;
    const height = narrow ? 150 : innerWidth >= 1800 ? 230 : 190;
    this.#size = { width: this.box.clientWidth, height, gap, below: LINE + gap, done: this.#done };
    addRows(this.#rows, this.#ratios, this.#size);
    const last = this.#rows.at(-1);
    this.box.style.height = `${last ? last.top + last.height + LINE : 0}px`;
  }

  #soon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const rows = this.#rows;
    const top = -this.box.getBoundingClientRect().top;
    const from = rows[rowAt(rows, top - BEYOND * innerHeight, LINE)]?.first ?? 0;
    const to = (rows[rowAt(rows, top + (1 + BEYOND) * innerHeight, LINE)] ?? rows.at(-1))?.end ?? 0;
    for (const [n, cell] of this.#cells) {
      if ((n >= from && n < to) || n === this.#current) continue;
      cell.remove();
      this.#cells.delete(n);
    }
    const wanted = [];
    for (let n = from; n < to; n++) wanted.push(n);
    const laid = rows.at(-1)?.end ?? 0;
    if (this.#current < laid && (this.#current < from || this.#current >= to)) wanted.push(this.#current);
    wanted.sort((a, b) => b - a);
    let after = null; // from the end, so that each is put before one that is there
    for (const n of wanted) {
      let cell = this.#cells.get(n);
      if (!cell) {
        cell = this.#place(this.cellOf(this.#items[n], n), n);
        this.#cells.set(n, cell);
        this.box.insertBefore(cell, after);
      }
      after = cell;
    }
  }

  #place(cell, n) {
    if (n >= (this.#rows.at(-1)?.end ?? 0)) return cell;
    const row = this.#rows[rowOf(this.#rows, n)];
    const style = { left: this.#left(n), top: row.top, width: this.#width(n), height: row.height + LINE };
    for (const [name, value] of Object.entries(style)) cell.style[name] = `${value.toFixed(2)}px`;
    cell.ariaSetSize = this.#done ? this.#items.length : -1;
    cell.ariaPosInSet = n + 1;
    for (const link of cell.querySelectorAll("a")) link.tabIndex = n === this.#current ? 0 : -1;
    return cell;
  }

  #left(n) {
    const row = this.#rows[rowOf(this.#rows, n)];
    let left = 0;
    for (let m = row.first; m < n; m++) left += this.#width(m) + this.#size.gap;
    return left;
  }

  #width(n) {
    return this.#ratios[n] * this.#rows[rowOf(this.#rows, n)].height;
  }

  #reached(cell) {
    if (cell) this.#point(Number(cell.ariaPosInSet) - 1);
  }

  #point(n) {
    for (const at of [this.#current, n]) {
      const link = this.#cells.get(at)?.querySelector("a");
      if (link) link.tabIndex = at === n ? 0 : -1;
    }
    this.#current = n;
  }
}
