// One picture, large, with what it was asked for and what can be done with it.

import { pathOf } from "./api.js";
import { againButton } from "./again.js";
import { byId, make } from "./dom.js";
import { parameterList, promptOf } from "./parameters.js";
import { forget, pathOfSource, saved, show } from "./pictures.js";

/** The dialog. */
export class Details {
  #dialog = byId("details");
  #result = null;
  #gallery = null;
  #actions;

  /** @param actions `change(result)` and `edit(result)`: bring it into the form. */
  constructor(actions) {
    this.#actions = actions;
    byId("details-close").addEventListener("click", () => this.#dialog.close());
    byId("details-previous").addEventListener("click", () => this.#step(-1));
    byId("details-next").addEventListener("click", () => this.#step(1));
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
    });
    this.#dialog.addEventListener("close", () => {
      forget(this.#dialog);
      this.#gallery?.focus(this.#result);
    });
  }

  /** Show a result of the gallery. */
  open(result, gallery) {
    this.#gallery = gallery;
    this.#show(result);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #step(by) {
    const next = this.#gallery?.beside(this.#result, by);
    if (next) this.#show(next);
  }

  #show(result) {
    this.#result = result;
    byId("details-previous").disabled = !this.#gallery.beside(result, -1);
    byId("details-next").disabled = !this.#gallery.beside(result, 1);
    forget(this.#dialog);
    requestAnimationFrame(() => this.#letScroll());
    byId("details-body").replaceChildren(
      this.#pictures(result),
      make(
        "div",
        { className: "facts" },
        make("p", { className: "prompt", dir: "auto" }, promptOf(result)),
        this.#buttons(result),
        parameterList(result),
      ),
    );
  }

  /** Whoever has no mouse scrolls a long prompt by arrow keys. */
  #letScroll() {
    const prompt = this.#dialog.querySelector(".prompt");
    if (prompt.scrollHeight > prompt.clientHeight) prompt.tabIndex = 0;
  }

  #pictures(result) {
    if (result.thumbnail_url === null) return make("div", { className: "views" });
    const picture = make("img", { alt: promptOf(result) });
    show(picture, pathOf(result.url));
    const { source_images: sources = [], mask } = result.task;
    const edited = sources.map((reference, place) =>
      this.#read(reference, `Picture ${place + 1} that was edited`));
    const before = figure("Before", make("div", { className: "befores" }, ...edited));
    const within = mask && figure("Changed where the mask is white or transparent",
      make("div", { className: "befores" }, this.#read(mask, "Mask")));
    const after = edited.length ? figure("After", picture) : make("figure", {}, picture);
    return make("div", { className: "views" }, after, edited.length > 0 && before, within);
  }

  #read(reference, alt) {
    const image = make("img", { alt });
    show(image, pathOfSource(reference));
    return image;
  }

  #buttons(result) {
    const button = (text, act) =>
      make("button", { type: "button", onclick: () => this.#leave(act, result) }, text);
    const pictured = result.thumbnail_url !== null;
    return make(
      "div",
      { className: "actions" },
      againButton(result, false, "primary"),
      pictured && againButton(result, true),
      pictured && button("Change", this.#actions.change),
      pictured && button("Edit this picture", this.#actions.edit),
      this.#saveButton(result),
    );
  }

  #saveButton(result) {
    const button = make("button", { type: "button" }, "Save");
    button.addEventListener("click", async () => {
      const href = await saved(pathOf(result.url));
      const name = result.id.replace("/", "-");
      make("a", { href, download: `${name}${result.kind === "score" ? ".json" : ""}` }).click();
    });
    return button;
  }

  #leave(act, result) {
    this.#gallery = null; // the focus goes to the form
    this.#dialog.close();
    act(result);
  }
}

const figure = (caption, content) =>
  make("figure", {}, content, make("figcaption", {}, caption));
