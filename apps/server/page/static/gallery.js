// Pictures, newest first: those that are being drawn, then pages that load as they are scrolled to.

import { ApiError, json, pathOf } from "./api.js";
import { byId, gathered, make, setText } from "./dom.js";
import { forget } from "./pictures.js";
import { promptOf } from "./parameters.js";
import { createTile, updateTile } from "./tile.js";
import { TileGrid } from "./tile_grid.js";
import { counted } from "./words.js";

const FIRST_PAGE = 60;
const PAGE = 200;
const MOST_WAITING = 500; // that come while somebody looks further down
const MOST = 20_000; // results that are kept; older ones are asked for again
const SEARCH_PAUSE = 300; // milliseconds after the last key
const ON_ITS_WAY = 10_000; // milliseconds that a result's event may come after the task runs no more
const NEXT_LOOK = 1_000; // milliseconds until it is seen whether it has come
const EXAMPLE = "a small red house by a lake at sunset";

/** The gallery, with its filter. Its entries have an `id`, and a `result` or what is `running`. */
export class Gallery {
  #entries = []; // shown, in their order
  #waiting = []; // that came while somebody looks further down, the newest first
  #known = new Map(); // of both, by id
  #running = new Map(); // tasks that workers have, by id, whether they are shown or not
  #more = false;
  #dropped = false; // more came than wait here
  #asking = 0; // requests for the first page that are on their way
  #meanwhile = []; // results that came since then
  #turn = 0; // of the filter: answers to an earlier one are not shown
  #loading = false;
  #failed = false; // older ones could not be read; the button is there to try again
  #open;
  #example;
  #grid = new TileGrid(byId("pictures"), {
    create: () => createTile(this.#open),
    update: updateTile,
    gone: forget,
    atEnd: () => this.#failed || this.#older(),
    ended: () => !this.#more,
  });

  /**
   * @param open is called with a result to be seen, and this gallery.
   * @param example is called with a prompt to try.
   */
  constructor(open, example) {
    this.#open = (result) => open(result, this);
    this.#example = example;
    const anew = () => this.refresh(true).catch(() => {}); // who says that the server is gone is live.js
    byId("words").addEventListener("input", gathered(anew, SEARCH_PAUSE));
    byId("kind").addEventListener("change", anew);
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("older").addEventListener("click", () => this.#older());
    byId("fresh").addEventListener("click", () => this.#showFresh());
    const returned = () => this.#waiting.length > 0 && this.#isAtTop() && this.#showFresh();
    addEventListener("scroll", returned, { passive: true });
  }

  /**
   * Read the first page.
   * @param anew show it whatever is shown now; else all stays if nothing of it is new.
   */
  async refresh(anew = false) {
    const turn = (this.#turn += 1);
    this.#asking += 1;
    const page = await json(this.#query(FIRST_PAGE)).finally(() => (this.#asking -= 1));
    if (turn !== this.#turn) return;
    const shown = this.#entries.filter((entry) => entry.result).length;
    const missedNone =
      page.data.length >= Math.min(FIRST_PAGE, shown) &&
      page.data.every((result) => this.#known.get(result.id)?.result);
    const meanwhile = this.#meanwhile.splice(0);
    if (!anew && missedNone) return this.#changed();
    const found = page.data.map((result) => ({ id: result.id, result }));
    const ids = new Set(found.map((entry) => entry.id));
    const running = [...this.#running].filter(([id, task]) => !ids.has(id) && this.#fits(task));
    this.#entries = [...running.reverse().map(([id, task]) => ({ id, running: task })), ...found];
    this.#waiting = [];
    this.#dropped = this.#failed = false;
    this.#known = new Map(this.#entries.map((entry) => [entry.id, entry]));
    this.#more = page.has_more;
    this.#changed();
    for (const result of meanwhile) this.add(result);
  }

  /** A worker has a task, or tells of its steps: an event `step`. */
  began({ job, position, ...task }) {
    const id = `${job}/${position}`;
    const entry = this.#known.get(id);
    if (entry?.result) return;
    const running = this.#running.get(id) ?? {};
    this.#running.set(id, Object.assign(running, task, { seen: performance.now(), ended: undefined }));
    if (entry) this.#grid.soon();
    else if (this.#fits(running)) this.#put({ id, running });
  }

  /** A running task's picture can be seen in part: an event `preview`. */
  preview({ job, position, url }) {
    const running = this.#running.get(`${job}/${position}`);
    if (!running) return;
    running.preview = withNumber(url);
    this.#grid.soon();
  }

  /**
   * Which tasks run, as the server said when it was asked.
   * @param jobs that run; all of them unless `more`.
   * @param asked when, by `performance.now()`: what began later is not in its answer.
   * @returns milliseconds after which to ask again, as a task that is shown is not in the answer: it
   *   has begun, ended or been given up; undefined if all are.
   */
  follow(jobs, more, asked) {
    const ids = new Set();
    for (const job of jobs) {
      for (const { preview_url: url, ...task } of job.running ?? []) {
        ids.add(`${job.id}/${task.position}`);
        this.began({ job: job.id, ...task });
        if (url) this.preview({ job: job.id, position: task.position, url });
      }
    }
    if (more) return undefined;
    let again;
    for (const [id, task] of this.#running) {
      if (ids.has(id)) continue;
      if (task.seen < asked) task.ended ??= asked;
      if (asked - (task.ended ?? asked) >= ON_ITS_WAY) this.#remove(id);
      else again = NEXT_LOOK;
    }
    return again;
  }

  /** A task has its result. */
  add(result) {
    this.#running.delete(result.id);
    if (this.#asking) this.#meanwhile.push(result);
    const entry = this.#known.get(result.id);
    if (entry?.result) return;
    if (!result.success) return this.#remove(result.id);
    if (entry) {
      entry.result = result; // in the place where it was being drawn
      delete entry.running;
      this.#changed();
    } else if (this.#wants(result)) this.#put({ id: result.id, result });
  }

  /** The result before (-1) or after (1) another one, as they are shown. */
  beside(result, step) {
    let place = this.#placeOf(result.id);
    if (place < 0) return undefined;
    do place += step;
    while (this.#entries[place] && !this.#entries[place].result);
    return this.#entries[place]?.result;
  }

  /** Put the focus where a result is shown. */
  focus(result) {
    const place = this.#placeOf(result.id);
    if (place >= 0) this.#grid.focus(place);
  }

  #placeOf(id) {
    return this.#entries.findIndex((entry) => entry.id === id);
  }

  #put(entry) {
    this.#known.set(entry.id, entry);
    this.#waiting.unshift(entry);
    if (this.#waiting.length > MOST_WAITING) {
      this.#dropped = true;
      this.#known.delete(this.#waiting.pop().id);
    }
    if (this.#isAtTop()) this.#showFresh();
    else this.#changed();
  }

  #remove(id) {
    this.#running.delete(id);
    if (!this.#known.delete(id)) return;
    this.#entries = this.#entries.filter((entry) => entry.id !== id);
    this.#waiting = this.#waiting.filter((entry) => entry.id !== id);
    this.#changed();
  }

  async #older() {
    const last = this.#entries.findLast((entry) => entry.result);
    if (this.#loading || !this.#more || !last) return;
    this.#loading = true;
    const turn = this.#turn;
    try {
      const page = await json(this.#query(PAGE, last.id));
      if (turn !== this.#turn) return;
      const found = page.data
        .filter((result) => !this.#known.has(result.id))
        .map((result) => ({ id: result.id, result }));
      for (const entry of found) this.#known.set(entry.id, entry);
      this.#entries.push(...found);
      this.#more = page.has_more;
      this.#failed = false;
      this.#changed();
    } catch (error) {
      this.#failed = true;
      // The last one was removed meanwhile, as all are some time after their job's end.
      if (error instanceof ApiError && error.status === 404) this.refresh(true).catch(() => {});
    } finally {
      this.#loading = false;
    }
  }

  #showFresh() {
    const wasAtTop = this.#isAtTop();
    if (this.#dropped) this.refresh(true).catch(() => {});
    else this.#entries.unshift(...this.#waiting.splice(0));
    if (this.#entries.length > MOST) {
      for (const { id } of this.#entries.splice(MOST)) this.#known.delete(id);
      this.#more = true;
    }
    if (!wasAtTop) byId("gallery").scrollIntoView();
    this.#changed();
  }

  #changed() {
    const fresh = byId("fresh");
    const waiting = this.#waiting.filter((entry) => entry.result).length;
    fresh.hidden = waiting === 0;
    const more = this.#dropped ? "more than " : "";
    setText(fresh, `Show ${more}${counted(waiting, "new picture")}`);
    byId("older").hidden = !this.#more;
    this.#grid.show(this.#entries);
    this.#showEmpty();
  }

  #showEmpty() {
    const empty = byId("empty");
    empty.hidden = this.#entries.length > 0;
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

  #wants(result) {
    return result.success && this.#fits({ kind: result.kind, title: promptOf(result) });
  }

  #fits({ kind, title }) {
    if (this.#kind && this.#kind !== kind) return false;
    return title.toLowerCase().includes(this.#words.toLowerCase());
  }

  #isAtTop() {
    return byId("gallery").getBoundingClientRect().top > -200;
  }

  #query(limit, after) {
    const query = new URLSearchParams({ outcome: "done", limit });
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

/** A preview's path, with the number that makes each another picture. */
const withNumber = (url) => pathOf(url) + new URL(url, location.href).search;
