// A grid of square tiles, however many: only those near the window are in the document.

import { placeAfter } from "./arrows.js";
import { reconcile } from "./dom.js";

const NEAR = 800; // pixels above and below the window
const LEAST = 2; // rows that are there wherever the window is

/** Shows items in a list whose style is a grid; each of its <li> has one button. */
export class TileGrid {
  #list;
  #parts;
  #items = [];
  #first = 0; // place of the first one in the document
  #frame = null;
  #stop = null; // id of the one that Tab reaches

  /**
   * @param parts `create(item)` and `update(element, item)` as of `reconcile`, `gone(element)` before
   *   one is removed, `atEnd()` when the last ones are near, `ended()` says whether there are no more.
   */
  constructor(list, parts) {
    this.#list = list;
    this.#parts = parts;
    addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.soon()).observe(list.parentElement);
    list.addEventListener("keydown", (event) => this.#move(event));
    list.addEventListener("focusin", (event) => {
      this.#stop = event.target.closest("li").dataset.id;
      this.#arrange();
    });
  }

  /** Show these items, which have unique `id`s, with the next frame. */
  show(items) {
    this.#items = items;
    this.soon();
  }

  /** Bring what is in the document up to date with the next frame. */
  soon() {
    this.#frame ??= requestAnimationFrame(() => this.#render());
  }

  /** Put the focus on the item at a place, which may be far away. */
  focus(place) {
    if (this.#items.length === 0) return;
    if (!this.#elementAt(place)) {
      const { columns, row, top } = this.#measures();
      const middle = Math.floor(place / columns) * row - (innerHeight - row) / 2;
      scrollTo(scrollX, scrollY + top + middle);
      this.#render();
    }
    this.#elementAt(place)?.querySelector("button").focus();
  }

  #render() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const { columns, row, top } = this.#measures();
    const rows = Math.ceil(this.#items.length / columns);
    const above = Math.floor((-top - NEAR) / row);
    const first = Math.max(0, Math.min(above, rows - LEAST));
    const below = Math.ceil((innerHeight - top + NEAR) / row);
    const end = Math.min(rows, Math.max(below, first + LEAST));
    this.#first = first * columns;
    const near = this.#items.slice(this.#first, end * columns);
    this.#list.style.paddingTop = `${first * row}px`;
    this.#list.style.paddingBottom = `${(rows - end) * row}px`;
    const { create, update, gone } = this.#parts;
    reconcile(this.#list, near, create, update, gone);
    this.#arrange();
    if (end === rows) this.#parts.atEnd();
  }

  #measures() {
    const style = getComputedStyle(this.#list);
    const tracks = style.gridTemplateColumns.split(" ").map(parseFloat);
    const { top } = this.#list.getBoundingClientRect();
    return { columns: tracks.length, row: tracks[0] + parseFloat(style.rowGap), top };
  }

  #elementAt(place) {
    return this.#list.children[place - this.#first];
  }

  #move(event) {
    const item = event.target.closest("li");
    const place = this.#first + [...this.#list.children].indexOf(item);
    const { length } = this.#items;
    const next = placeAfter(event.key, place, this.#measures().columns, length);
    if (next === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.focus(next);
  }

  /** Have one button to be reached by Tab, and each say its place to screen readers. */
  #arrange() {
    const items = [...this.#list.children];
    const stop = items.find((item) => item.dataset.id === this.#stop) ?? items[0];
    const size = this.#parts.ended() ? this.#items.length : -1;
    for (const [place, item] of items.entries()) {
      item.querySelector("button").tabIndex = item === stop ? 0 : -1;
      item.ariaSetSize = size;
      item.ariaPosInSet = this.#first + place + 1;
    }
  }
}
