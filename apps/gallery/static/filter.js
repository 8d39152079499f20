// Which items are shown, and in which order.

import { byId, gathered, make } from "./dom.js";
import { holds, lacksScore, loraWords, reasonOf, scoreNames, scoreOf, STATES } from "./items.js";
import { grouped } from "./words.js";

const PAUSE = 120; // milliseconds after the last key
const NONE = "\u0000none";
const RANK = { failed: 0, running: 1, done: 2, waiting: 3 };

/** The form above the pictures. */
export class Filter {
  #changed;
  #selects = {};
  #shape = ""; // of the choices that are there
  #reason = null;

  /** @param changed is called when something else is to be shown. */
  constructor(changed) {
    this.#changed = changed;
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("words").addEventListener("input", gathered(changed, PAUSE));
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input, select, textarea, dialog");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      byId("words").focus();
    });
  }

  /** Offer what these items differ in. */
  offer(items) {
    const scores = scoreNames(items);
    const values = (of) => counts(items, of);
    const orders = [
      ["failed", "Failures first"],
      ["order", "Order of the input"],
      ["newest", "Newest first"],
      ["slowest", "Slowest first"],
      ...scores.flatMap((name) => [
        [`low ${name}`, `${name}, lowest first`],
        [`high ${name}`, `${name}, highest first`],
      ]),
      ...(items.some((item) => item.other)
        ? [["worse", "Where B lost most"], ["better", "Where B won most"]]
        : []),
    ];
    const choices = {
      state: ["State", [["", `All (${grouped(items.length)})`], ...values((i) => i.state)
        .sort(([a], [b]) => RANK[a] - RANK[b])
        .map(([state, count]) => [state, `${STATES[state]} (${grouped(count)})`])]],
      lora: ["LoRA", options("All", values((i) => loraWords(i) || NONE), "No LoRA")],
      worker: ["Worker", options("All", values((i) => i.worker ?? NONE), "None")],
      category: ["Category", options("All", values((i) => i.category ?? NONE), "None")],
      order: ["Order", orders],
    };
    const shape = JSON.stringify(choices);
    if (shape === this.#shape) return;
    this.#shape = shape;
    const before = Object.fromEntries(
      Object.entries(this.#selects).map(([name, select]) => [name, select.value]),
    );
    const shown = Object.entries(choices).filter(
      ([name, [, list]]) => name === "order" || list.length > 2,
    );
    this.#selects = Object.fromEntries(
      shown.map(([name, [, list]]) => [name, this.#select(name, list, before[name])]),
    );
    byId("choices").replaceChildren(
      ...shown.map(([name, [label]]) =>
        make("label", { className: "choice" }, `${label} `, this.#selects[name]),
      ),
    );
  }

  /** The items that are asked for, in the order that is. */
  chosen(items) {
    const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = this.#value("state");
    const lora = this.#value("lora");
    const worker = this.#value("worker");
    const category = this.#value("category");
    const found = items.filter(
      (item) =>
        (!state || item.state === state) &&
        (!lora || (loraWords(item) || NONE) === lora) &&
        (!worker || (item.worker ?? NONE) === worker) &&
        (!category || (item.category ?? NONE) === category) &&
        (!this.#reason || reasonOf(item) === this.#reason) &&
        holds(item, words),
    );
    return ordered(found, this.#value("order") || "failed");
  }

  /** The score that the order is about. */
  get score() {
    return this.#value("order").split(" ")[1];
  }

  /** Show the failures of one reason alone, or everything again. */
  choose(reason) {
    this.#reason = this.#reason === reason ? null : reason;
    for (const [name, select] of Object.entries(this.#selects)) {
      if (name !== "order") select.value = "";
    }
    byId("words").value = "";
    this.#changed();
  }

  get reason() {
    return this.#reason;
  }

  /** Show one category alone. */
  chooseCategory(category) {
    if (this.#selects.category) this.#selects.category.value = category;
    this.#changed();
  }

  #value(name) {
    return this.#selects[name]?.value ?? "";
  }

  #select(name, list, value) {
    const select = make("select", { name }, ...list.map(([key, words]) =>
      make("option", { value: key }, words)));
    if (list.some(([key]) => key === value)) select.value = value;
    select.addEventListener("change", () => {
      if (name === "state") this.#reason = null;
      this.#changed();
    });
    return select;
  }
}

/** Values with how many items have each, the most frequent first. */
function counts(items, of) {
  const found = new Map();
  for (const item of items) found.set(of(item), (found.get(of(item)) ?? 0) + 1);
  return [...found].sort(([, a], [, b]) => b - a);
}

function options(all, values, none) {
  const named = values.map(([value, count]) => [
    value,
    `${value === NONE ? none : value} (${grouped(count)})`,
  ]);
  return [["", all], ...named];
}

/** Items in an order; those alike keep that of the input. */
export function ordered(items, order) {
  const [way, score] = order.split(" ");
  const last = way === "low" ? Infinity : -Infinity; // those without a score come last
  const gap = (item) => scoreOf(item.other ?? {}, "O") - scoreOf(item, "O");
  const keys = {
    failed: (item) => (item.state === "failed" || item.missing ? 0 : lacksScore(item) ? 1 : 2),
    newest: (item) => -(item.at ?? 0),
    slowest: (item) => -(item.seconds ?? 0),
    low: (item) => scoreOf(item, score) ?? last,
    high: (item) => -(scoreOf(item, score) ?? last),
    worse: (item) => (Number.isNaN(gap(item)) ? Infinity : gap(item)),
    better: (item) => (Number.isNaN(gap(item)) ? Infinity : -gap(item)),
  };
  const key = keys[way];
  if (!key) return items;
  return items
    .map((item, place) => ({ item, place, key: key(item) }))
    .sort((a, b) => (a.key === b.key ? a.place - b.place : a.key - b.key))
    .map(({ item }) => item);
}
