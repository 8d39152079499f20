// Tasks that failed, before everything else: with the reason, and what to do about it.

import { inOrder, json } from "./api.js";
import { adviceFor } from "./advice.js";
import { againButton } from "./again.js";
import { byId, make, reconcile, setText } from "./dom.js";
import { promptOf } from "./parameters.js";
import { counted, date, grouped, shortened } from "./words.js";

const FEW = 3;
const MANY = 50;
const NAMED = 5; // tasks of a group whose places are said
const PLACE = "hidden-failures";
const MOST_HIDDEN = 5_000;
const newestFailures = inOrder(() => json(`/v1/failures?limit=${MANY}`));

/** Failures, equal ones of a job together, the newest first; those that were read can be hidden. */
export class Failures {
  #shown = FEW;
  #groups = [];
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
    const page = await newestFailures();
    if (!page) return;
    this.#groups = page.data
      .map((group) => ({ ...group, id: group.first.id, positions: this.#unread(group) }))
      .filter(({ positions }) => positions.length > 0);
    this.#more = page.has_more;
    this.#show();
  }

  /** Places of the tasks of a group that were not hidden. */
  #unread({ job, positions }) {
    return positions.filter((position) => !this.#hidden.has(`${job}/${position}`));
  }

  #show() {
    const count = this.#groups.length;
    const tasks = this.#groups.reduce((sum, { positions }) => sum + positions.length, 0);
    byId("failures").hidden = count === 0;
    setText(byId("failures-title"), `Failed: ${grouped(tasks)}${this.#more ? "+" : ""}`);
    byId("failures-more").hidden = count <= this.#shown;
    setText(byId("failures-more"), `Show ${count - this.#shown} more`);
    const groups = this.#groups.slice(0, this.#shown);
    reconcile(byId("failures-list"), groups, ({ first }) => this.#item(first), showOthers);
  }

  #item(result) {
    const change = make("button", { type: "button", className: "quiet" }, "Change");
    change.addEventListener("click", () => this.#change(result));
    return make(
      "li",
      { className: "failure" },
      make(
        "div",
        {},
        make(
          "p",
          { className: "prompt", dir: "auto", title: date(result.created_at) },
          shortened(promptOf(result), 160),
        ),
        make("p", { className: "reason" }, shortened(reasonOf(result), 600)),
        make("p", { className: "hint others", hidden: true }),
        make("p", { className: "hint" }, adviceFor(result)),
      ),
      // One that was refused at once would be refused again.
      make("div", { className: "actions" }, result.attempts > 0 && againButton(result), change),
    );
  }

  #hide() {
    for (const { job, positions } of this.#groups) {
      for (const position of positions) this.#hidden.add(`${job}/${position}`);
    }
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

/** How many more tasks of the job failed for the same reason, and which. */
function showOthers(element, { first, positions }) {
  const others = positions.filter((position) => position !== first.position);
  const places = others.slice(0, NAMED).join(", ") + (others.length > NAMED ? ", …" : "");
  const text = element.querySelector(".others");
  text.hidden = others.length === 0;
  const which = others.length === 1 ? `number ${places}` : `numbers ${places}`;
  setText(text, `So did ${counted(others.length, "other task")} of this job: ${which}.`);
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
