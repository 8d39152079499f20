// One item, large, with all that is known of it; Left and Right lead to its neighbours.

import { commandText, copyButton, taskText } from "./copying.js";
import { byId, make } from "./dom.js";
import { factList, factsOf, verdictList } from "./facts.js";
import { picture } from "./item_tile.js";
import { promptOf } from "./items.js";
import { slider } from "./slider.js";
import { Sight, Stage } from "./stage.js";
import { grouped } from "./words.js";

/** The dialog. */
export class Viewer {
  #dialog = byId("viewer");
  #item = null;
  #sight = null;
  #list;
  #way = "slider"; // in which an edit is compared with its source

  /** @param list `beside(item, step)`, `focus(item)`, `mark(item)`, `isMarked(item)`, `place(item)`. */
  constructor(list) {
    this.#list = list;
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
    });
    this.#dialog.addEventListener("close", () => {
      this.#list.focus(this.#item);
      this.#dialog.replaceChildren();
    });
  }

  open(item) {
    this.#show(item);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #key(event) {
    if (event.target.closest("input, select")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") this.#step(-1);
    else if (event.key === "ArrowRight") this.#step(1);
    else if (event.key === "c") this.#mark();
    else if (!this.#sight.key(event)) return;
    event.preventDefault();
  }

  #step(by) {
    const next = this.#list.beside(this.#item, by);
    if (next) this.#show(next);
  }

  #mark() {
    this.#list.mark(this.#item);
    if (this.#dialog.open) this.#show(this.#item, true);
  }

  #show(item, stays = false) {
    const focused = stays || this.#dialog.open ? document.activeElement?.dataset?.does : null;
    this.#item = item;
    this.#sight = new Sight();
    const { place, of } = this.#list.place(item);
    const does = (name, label, words, act, properties = {}) =>
      make("button", { type: "button", "data-does": name, ariaLabel: label, title: label,
        onclick: act, ...properties }, words);
    this.#dialog.replaceChildren(
      make("div", { className: "dialog-head" },
        make("h2", { id: "viewer-title", dir: "auto" }, item.name),
        make("span", { className: "figure" }, place > 0 ? `${grouped(place)} of ${grouped(of)}` : ""),
        does("previous", "Previous", "‹", () => this.#step(-1),
          { disabled: !this.#list.beside(item, -1) }),
        does("next", "Next", "›", () => this.#step(1), { disabled: !this.#list.beside(item, 1) }),
        does("close", "Close", "×", () => this.#dialog.close())),
      make("div", { className: "details-body" },
        make("div", { className: "pictured" }, ...this.#pictures(item)),
        make("div", { className: "facts" },
          make("p", { className: "prompt", dir: "auto", tabIndex: 0 }, promptOf(item)),
          item.error && make("p", { className: "reason", dir: "auto" }, item.error),
          this.#buttons(item),
          ...verdictList(item, item.other ? "A" : ""),
          ...(item.other ? verdictList(item.other, "B") : []),
          factList(factsOf(item)))),
    );
    const again = focused && this.#dialog.querySelector(`[data-does="${focused}"]:enabled`);
    (again || this.#dialog.querySelector("[data-does=close]")).focus();
  }

  #pictures(item) {
    if (!item.url && !item.sources) return [make("p", { className: "empty" }, "No picture.")];
    const main = item.url && whole(item, promptOf(item));
    const before = item.sources?.[0] && picture(item.sources[0], "Before the edit");
    if (item.other) return this.#runs(item, before, main);
    if (!main || !before) return [this.#stage(main || before), this.#zoom()];
    const shown =
      this.#way === "slider"
        ? slider(this.#sight, before, main, "How much of the picture before is seen",
            ["Before", "After"])
        : make("div", { className: "beside" }, this.#stage(before, "Before"),
            this.#stage(main, "After"));
    const more = item.sources.slice(1).map((source, number) =>
      picture(source, `Picture ${number + 2} that was given`));
    return [
      shown,
      this.#zoom(this.#wayButton()),
      more.length > 0 && make("div", { className: "befores" }, ...more),
    ].filter(Boolean);
  }

  #runs(item, before, main) {
    const other = item.other.url && whole(item.other, `${promptOf(item)}, run B`);
    const none = (run) => make("p", { className: "empty" }, `${run} has no picture.`);
    if (this.#way === "slider" && main && other) {
      return [
        slider(this.#sight, main, other, "How much of A is seen", ["A", "B"]),
        this.#zoom(this.#wayButton()),
        before && make("div", { className: "befores" }, before),
      ].filter(Boolean);
    }
    return [
      make("div", { className: "beside" },
        ...(before ? [this.#stage(before, "Before")] : []),
        main ? this.#stage(main, "A") : none("A"),
        other ? this.#stage(other, "B") : none("B")),
      this.#zoom(main && other && this.#wayButton()),
    ];
  }

  #wayButton() {
    const words = this.#way === "slider" ? "Side by side" : "With a slider";
    return make("button", { type: "button", "data-does": "way", onclick: () => {
      this.#way = this.#way === "slider" ? "beside" : "slider";
      this.#show(this.#item, true);
    } }, words);
  }

  #stage(image, words = "") {
    const stage = new Stage(this.#sight, image).element;
    return make("figure", {}, stage, words && make("figcaption", {}, words));
  }

  #zoom(more = null) {
    const does = (name, label, words, act) =>
      make("button", { type: "button", "data-does": name, ariaLabel: label, onclick: act }, words);
    return make("div", { className: "actions zooms" },
      does("larger", "Larger", "+", () => this.#sight.zoom(1.5)),
      does("smaller", "Smaller", "−", () => this.#sight.zoom(1 / 1.5)),
      does("whole", "Whole picture", "Whole", () => this.#sight.whole()),
      more || null);
  }

  #buttons(item) {
    const marked = this.#list.isMarked(item);
    const mark = make("button", { type: "button", "data-does": "mark", onclick: () => this.#mark() },
      marked ? "Unmark" : "Compare with another");
    return make("div", { className: "actions" },
      copyButton(item.task?.instruction ? "Copy the instruction" : "Copy the prompt",
        () => promptOf(item)),
      !item.given && promptOf(item)
        ? copyButton("Copy the command", () => commandText(item))
        : null,
      copyButton("Copy the task", () => taskText(item)),
      item.url && !item.other ? mark : null,
      item.url && make("a", { className: "button", href: item.url, target: "_blank",
        rel: "noopener" }, "Open the file"));
  }
}

/** An <img> of the picture; where it cannot be had, of the small copy. */
function whole({ thumb, url }, alt) {
  const image = make("img", { alt, decoding: "async" });
  image.addEventListener("error", () => {
    if (thumb && image.getAttribute("src") === url) image.src = thumb;
    else image.classList.add("gone");
  });
  image.src = url;
  return image;
}
