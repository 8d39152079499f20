// Pictures, newest first: pages that load as they are scrolled to, and those that come meanwhile.

import { json } from "./api.js";
import { moveByArrows } from "./arrows.js";
import { byId, gathered, make, setText } from "./dom.js";
import { forget } from "./pictures.js";
import { promptOf } from "./parameters.js";
import { tile } from "./tile.js";
import { counted } from "./words.js";

const PAGE = 60;
const SEARCH_PAUSE = 300; // milliseconds after the last key
const EXAMPLE = "a small red house by a lake at sunset";

/** The gallery, with its filter. */
export class Gallery {
  #results = []; // shown, in their order
  #ids = new Set(); // of these and those that wait
  #waiting = []; // that came while somebody looks further down, the newest first
  #more = false;
  #turn = 0; // of the filter: answers to an earlier one are not shown
  #loading = false;
  #open;
  #example;
  #arrange = moveByArrows(byId("pictures"));

  /**
   * @param open is called with a result to be seen, and this gallery.
   * @param example is called with a prompt to try.
   */
  constructor(open, example) {
    this.#open = (result) => open(result, this);
    this.#example = example;
    const anew = () => this.refresh(true).catch(() => {}); // who says that the server is gone is live.js
    const search = gathered(anew, SEARCH_PAUSE);
    byId("words").addEventListener("input", search);
    byId("kind").addEventListener("change", anew);
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("older").addEventListener("click", () => this.#older());
    byId("fresh").addEventListener("click", () => this.#showWaiting());
    const end = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && this.#older(),
      { rootMargin: "1200px" },
    );
    end.observe(byId("older"));
  }

  /**
   * Read the first page.
   * @param anew show it whatever is shown now; else pages that were scrolled to stay if it is the same.
   */
  async refresh(anew = false) {
    const turn = (this.#turn += 1);
    const page = await json(this.#query());
    if (turn !== this.#turn) return;
    this.#waiting = [];
    const list = byId("pictures");
    const same =
      page.data.length === Math.min(PAGE, this.#results.length) &&
      page.data.every((result, place) => this.#results[place].id === result.id);
    if (anew || !same) {
      forget(list);
      this.#results = page.data;
      this.#ids = new Set(page.data.map((result) => result.id));
      list.replaceChildren(...this.#results.map((result) => tile(result, this.#open)));
      this.#more = page.has_more;
    }
    this.#changed();
  }

  /** A result has come. */
  add(result) {
    if (!this.#wanted(result) || this.#ids.has(result.id)) return;
    this.#ids.add(result.id);
    this.#waiting.unshift(result);
    if (this.#isAtTop()) this.#showWaiting();
    else this.#changed();
  }

  /** The result before (-1) or after (1) another one, as they are shown. */
  beside(result, step) {
    const place = this.#results.findIndex((one) => one.id === result.id);
    return place < 0 ? undefined : this.#results[place + step];
  }

  /** Put the focus where a result is shown. */
  focus(result) {
    const item = byId("pictures").querySelector(`[data-id="${CSS.escape(result.id)}"]`);
    item?.querySelector("button").focus();
  }

  async #older() {
    if (this.#loading || !this.#more) return;
    this.#loading = true;
    const turn = this.#turn;
    try {
      const page = await json(this.#query(this.#results.at(-1).id));
      if (turn !== this.#turn) return;
      const fresh = page.data.filter((result) => !this.#ids.has(result.id));
      for (const { id } of fresh) this.#ids.add(id);
      this.#results.push(...fresh);
      byId("pictures").append(...fresh.map((result) => tile(result, this.#open)));
      this.#more = page.has_more;
      this.#changed();
    } catch {
      // the button is there to try again
    } finally {
      this.#loading = false;
    }
  }

  #showWaiting() {
    const fresh = this.#waiting;
    this.#waiting = [];
    this.#results.unshift(...fresh);
    byId("pictures").prepend(...fresh.map((result) => tile(result, this.#open)));
    if (!this.#isAtTop()) byId("gallery").scrollIntoView();
    this.#changed();
  }

  #changed() {
    const fresh = byId("fresh");
    fresh.hidden = this.#waiting.length === 0;
    setText(fresh, `Show ${counted(this.#waiting.length, "new picture")}`);
    byId("older").hidden = !this.#more;
    this.#showEmpty();
    this.#arrange();
  }

  #showEmpty() {
    const empty = byId("empty");
    empty.hidden = this.#results.length > 0;
    if (empty.hidden) return;
    if (this.#words || this.#kind) {
      empty.replaceChildren(make("p", {}, "No picture fits this search."));
    } else if (!empty.querySelector("button")) {
      const button = make("button", { type: "button" }, `Try “${EXAMPLE}”`);
      button.addEventListener("click", () => this.#example(EXAMPLE));
      empty.replaceChildren(
        make("h3", {}, "No pictures yet"),
        make("p", {}, "Describe one in the form, and it appears here when it is drawn."),
        button,
      );
    }
  }

  #wanted(result) {
    if (!result.success || (this.#kind && this.#kind !== result.kind)) return false;
    return promptOf(result).toLowerCase().includes(this.#words.toLowerCase());
  }

  #isAtTop() {
    return byId("gallery").getBoundingClientRect().top > -200;
  }

  #query(after) {
    const query = new URLSearchParams({ outcome: "done", limit: PAGE });
    if (this.#words) query.set("words", this.#words);
    if (this.#kind) query.set("kind", this.#kind);
    if (after) query.set("after", after);
    return `/v1/results?${query}`;
  }

  get #words() {
    return byId("words").value.trim();
  }

  get #kind() {
    return byId("kind").value;
  }
}
