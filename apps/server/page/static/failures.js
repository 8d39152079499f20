// Tasks that failed, before everything else: with the reason, and what to do about it.

import { json } from "./api.js";
import { adviceFor } from "./advice.js";
import { againButton } from "./again.js";
import { byId, make, setText } from "./dom.js";
import { promptOf } from "./parameters.js";
import { date, shortened } from "./words.js";

const FEW = 3;
const MANY = 50;
const PLACE = "hidden-failures";
const MOST_HIDDEN = 5_000;

/** The list of failures, the newest first; those that were read can be hidden. */
export class Failures {
  #shown = FEW;
  #results = [];
  #more = false;
  #hidden = new Set(stored());
  #change;

  /** @param change is called with a result that is to be changed in the form. */
  constructor(change) {
    this.#change = change;
    byId("failures-more").addEventListener("click", () => {
      this.#shown = MANY;
      this.refresh();
    });
    byId("failures-hide").addEventListener("click", () => this.#hide());
  }

  /** Read the newest failures. */
  async refresh() {
    const page = await json(`/v1/results?outcome=failed&limit=${MANY}`);
    this.#results = page.data.filter((result) => !this.#hidden.has(result.id));
    this.#more = page.has_more;
    this.#show();
  }

  #show() {
    const count = this.#results.length;
    byId("failures").hidden = count === 0;
    setText(byId("failures-title"), `Failed: ${count}${this.#more ? "+" : ""}`);
    byId("failures-more").hidden = count <= this.#shown;
    setText(byId("failures-more"), `Show ${count - this.#shown} more`);
    const list = byId("failures-list");
    const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
    const items = this.#results.slice(0, this.#shown);
    list.replaceChildren(...items.map((result) => known.get(result.id) ?? this.#item(result)));
  }

  #item(result) {
    const change = make("button", { type: "button", className: "quiet" }, "Change");
    change.addEventListener("click", () => this.#change(result));
    return make(
      "li",
      { "data-id": result.id, className: "failure" },
      make(
        "div",
        {},
        make(
          "p",
          { className: "prompt", dir: "auto", title: date(result.created_at) },
          shortened(promptOf(result), 160),
        ),
        make("p", { className: "reason" }, shortened(reasonOf(result), 600)),
        make("p", { className: "hint" }, adviceFor(result)),
      ),
      // One that was refused at once would be refused again.
      make("div", { className: "actions" }, result.attempts > 0 && againButton(result), change),
    );
  }

  #hide() {
    for (const { id } of this.#results) this.#hidden.add(id);
    const kept = [...this.#hidden].slice(-MOST_HIDDEN);
    try {
      localStorage.setItem(PLACE, JSON.stringify(kept));
    } catch {
      // a browser that keeps nothing shows them again after the next load
    }
    this.#shown = FEW;
    this.refresh();
    byId("gallery").focus({ preventScroll: true });
  }
}

/** The server's reason, without the task's place in the request. */
const reasonOf = ({ error }) => (error ?? "No reason was given.").replace(/^tasks\[\d+\]\./, "");

function stored() {
  try {
    return JSON.parse(localStorage.getItem(PLACE)) ?? [];
  } catch {
    return [];
  }
}
