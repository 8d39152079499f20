// A picture that can be enlarged and moved; stages that are linked show the same part.

import { make } from "./dom.js";

const MOST = 16;
const STEP = 1.25;

/** What several stages show: `scale` 1 is the whole picture; `x` and `y` are in parts of its size. */
export class Sight {
  scale = 1;
  x = 0;
  y = 0;
  #stages = [];

  join(stage) {
    this.#stages.push(stage);
  }

  /** Enlarge around a point, which is given in parts of the stage from its middle. */
  zoom(factor, x = 0, y = 0) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const by = scale / this.scale;
    this.x = x - (x - this.x) * by;
    this.y = y - (y - this.y) * by;
    this.scale = scale;
    this.#show();
  }

  move(x, y) {
    this.x += x;
    this.y += y;
    this.#show();
  }

  whole() {
    this.scale = 1;
    this.#show();
  }

  /** What keys do: +, - and 0. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    if (event.key === "+" || event.key === "=") this.zoom(STEP);
    else if (event.key === "-") this.zoom(1 / STEP);
    else if (event.key === "0") this.whole();
    else return false;
    return true;
  }

  #show() {
    const most = (this.scale - 1) / 2;
    this.x = Math.min(most, Math.max(-most, this.x));
    this.y = Math.min(most, Math.max(-most, this.y));
    for (const stage of this.#stages) stage.follow(this);
  }
}

/** An element with pictures in it, which a sight moves; wheel, drag, pinch and double click do. */
export class Stage {
  element;
  #inner;
  #sight;
  #pointers = new Map();
  #apart = 0;

  constructor(sight, ...pictures) {
    this.#sight = sight;
    this.#inner = make("div", { className: "moved" }, ...pictures);
    this.element = make("div", { className: "stage" }, this.#inner);
    sight.join(this);
    this.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.element.addEventListener("dblclick", (event) => {
      if (sight.scale > 1) sight.whole();
      else sight.zoom(3, ...this.#place(event));
    });
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.element.addEventListener(name, (event) => this.#pointer(event));
    }
  }

  follow({ scale, x, y }) {
    this.#inner.style.transform =
      scale === 1 ? "" : `translate(${x * 100}%, ${y * 100}%) scale(${scale})`;
    this.element.classList.toggle("enlarged", scale > 1);
  }

  #place(event) {
    const box = this.element.getBoundingClientRect();
    return [
      (event.clientX - box.left) / box.width - 0.5,
      (event.clientY - box.top) / box.height - 0.5,
    ];
  }

  #wheel(event) {
    event.preventDefault();
    this.#sight.zoom(Math.exp(-event.deltaY / 400), ...this.#place(event));
  }

  #pointer(event) {
    if (event.target.closest("input, button")) return;
    if (event.type === "pointerdown") {
      this.#pointers.set(event.pointerId, event);
      this.#apart = 0;
      return;
    }
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    if (event.type !== "pointermove") {
      this.#pointers.delete(event.pointerId);
      return;
    }
    this.#pointers.set(event.pointerId, event);
    if (this.#pointers.size > 1) {
      const [a, b] = [...this.#pointers.values()];
      const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (this.#apart) this.#sight.zoom(apart / this.#apart, ...this.#place(event));
      this.#apart = apart;
    } else if (this.#sight.scale > 1) {
      if (!this.element.hasPointerCapture(event.pointerId)) {
        this.element.setPointerCapture(event.pointerId);
      }
      const box = this.element.getBoundingClientRect();
      this.#sight.move(
        (event.clientX - before.clientX) / box.width,
        (event.clientY - before.clientY) / box.height,
      );
    }
  }
}
