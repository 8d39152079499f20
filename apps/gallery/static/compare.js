// Two items that were marked, side by side: both enlarged together, and what they differ in.

import { byId, make } from "./dom.js";
import { factsOf } from "./facts.js";
import { loraWords, promptOf } from "./items.js";
import { slider } from "./slider.js";
import { Sight, Stage } from "./stage.js";

/** The items that are marked, two at most, and the dialog that compares them. */
export class Compare {
  #marked = [];
  #changed;
  #dialog = byId("comparison");
  #sight = null;
  #way = "beside";

  /** @param changed is called when others are marked. */
  constructor(changed) {
    this.#changed = changed;
    this.#dialog.addEventListener("keydown", (event) => {
      if (!event.target.closest("input") && this.#sight?.key(event)) event.preventDefault();
    });
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener("close", () => this.clear());
  }

  has(item) {
    return this.#marked.some(({ id }) => id === item.id);
  }

  /** Mark an item, or no longer; the second one opens the comparison. */
  mark(item) {
    if (!item.url) return;
    if (this.has(item)) this.#marked = this.#marked.filter(({ id }) => id !== item.id);
    else this.#marked.push(item);
    if (this.#marked.length === 2) this.#open();
    this.#tell();
  }

  clear() {
    this.#marked = [];
    this.#dialog.replaceChildren();
    this.#tell();
  }

  #tell() {
    const bar = byId("marked");
    const [one] = this.#marked;
    bar.hidden = this.#marked.length !== 1;
    if (!bar.hidden) {
      bar.replaceChildren(
        make("span", {}, "Marked: ", make("b", { dir: "auto" }, one.name),
          ". Mark another picture to compare the two."),
        make("button", { type: "button", onclick: () => this.clear() }, "Never mind"),
      );
    }
    this.#changed();
  }

  #open() {
    for (const open of document.querySelectorAll("dialog[open]")) open.close();
    this.#show();
    this.#dialog.showModal();
  }

  #show() {
    const [a, b] = this.#marked;
    this.#sight = new Sight();
    const image = (item) => make("img", { src: item.url, alt: promptOf(item), decoding: "async" });
    const stage = (item) =>
      make("figure", {}, new Stage(this.#sight, image(item)).element,
        make("figcaption", { dir: "auto" }, item.name));
    const views =
      this.#way === "beside"
        ? make("div", { className: "beside" }, stage(a), stage(b))
        : slider(this.#sight, image(a), image(b), "How much of the first is seen", [a.name, b.name]);
    this.#dialog.replaceChildren(
      make("div", { className: "dialog-head" },
        make("h2", { id: "comparison-title" }, "Two pictures"),
        make("button", { type: "button", className: "wide", onclick: () => {
          this.#way = this.#way === "beside" ? "slider" : "beside";
          this.#show();
        } }, this.#way === "beside" ? "With a slider" : "Side by side"),
        make("button", { type: "button", ariaLabel: "Close", onclick: () => this.#dialog.close() },
          "×")),
      make("div", { className: "compared" }, views, differences(a, b)),
    );
  }
}

/** A table of what two items differ in. */
function differences(a, b) {
  const of = (item) =>
    new Map([["Prompt", promptOf(item)], ...factsOf(item), ["LoRA", loraWords(item) || "none"]]);
  const [first, second] = [of(a), of(b)];
  const names = [...new Set([...first.keys(), ...second.keys()])].filter(
    (name) => String(first.get(name)) !== String(second.get(name)),
  );
  const cell = (value) => make("td", { dir: "auto" }, String(value ?? "–"));
  return make("table", { className: "differences" },
    make("caption", { className: "unseen" }, "What they differ in"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""),
      make("th", { scope: "col", dir: "auto" }, a.name),
      make("th", { scope: "col", dir: "auto" }, b.name))),
    make("tbody", {}, ...names.filter((name) => name !== "Name").map((name) =>
      make("tr", {}, make("th", { scope: "row" }, name), cell(first.get(name)),
        cell(second.get(name))))));
}
