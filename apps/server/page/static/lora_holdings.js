// LoRAs in workers' memory: where each is, which are pinned, and what a worker refused. Operators
// load, pin and unload them here.

import { json } from "./api.js";
import { byId, gathered, make, reconcile, setText } from "./dom.js";
import { counted, grouped } from "./words.js";

const SHOWN = 8; // LoRAs that no worker holds: more are found by their names
const OFTEN = 10_000; // milliseconds: pins can change while workers hold what they held
const HURRY = 15_000; // milliseconds in which what was asked for is looked after closely
const QUIET = 500; // milliseconds after a letter of the search until it is said what was found
const PURPOSES = { generate: "drawing", edit: "editing" };
const ACTIONS = { load: "Load", pin: "Pin", unload: "Unload" };
const EXPLAINED = {
  load: "Read it now, and keep it until others displace it",
  pin: "Read it now, and keep it whatever else is used",
  unload: "Pinned no more, and out of the workers' memory",
};

/** The LoRAs of the server's folder as workers have them. */
export class LoraHoldings {
  #part = byId("holdings-part");
  #list = byId("holdings");
  #search = byId("holdings-search");
  #purpose = byId("holdings-purpose");
  #changed;
  #loras = [];
  #workers = [];
  #kinds = ["generate"];
  #used = new Set(); // stay in the list, as whoever pressed a button there looks at them
  #asked = null; // the last thing that was asked for, until it is so
  #typed = false; // in the search, and what was found is not said yet
  #seen = { holdings: "", at: -Infinity };

  /** @param changed is called when workers were told something. */
  constructor(changed) {
    this.#changed = changed;
    const tellFound = gathered(() => this.#tellFound(), QUIET);
    this.#search.addEventListener("input", () => {
      this.#typed = true;
      this.#show();
      tellFound();
    });
    this.#purpose.addEventListener("change", () => this.#show());
    this.#part.addEventListener("toggle", () => this.#part.open && this.#changed());
  }

  /** Whether workers are about to do what was asked for. */
  get hurries() {
    return this.#asked !== null && performance.now() - this.#asked.at < HURRY;
  }

  /** Read what the server has models for. */
  async refresh() {
    const { data } = await json("/v1/models");
    const served = new Set(data.flatMap((model) => model.kinds));
    this.#kinds = Object.keys(PURPOSES).filter((kind) => served.has(kind));
    this.#purpose.replaceChildren(
      ...this.#kinds.map((kind) => make("option", { value: kind }, PURPOSES[kind])),
    );
    byId("holdings-for").hidden = this.#kinds.length < 2;
    this.#seen.at = -Infinity;
  }

  /** Read where LoRAs are, if workers hold others than before or it is time. */
  async look(workers) {
    const names = new Set(workers.flatMap((worker) => worker.loras));
    setText(byId("holdings-count"), names.size ? grouped(names.size) : "");
    const held = JSON.stringify(workers.map(({ id, kind, status, loras }) => [id, kind, status, loras]));
    const now = performance.now();
    const known = held === this.#seen.holdings && now - this.#seen.at < OFTEN && !this.hurries;
    if (!this.#part.open || known) return;
    this.#loras = (await json("/v1/loras")).data;
    this.#workers = workers;
    this.#seen = { holdings: held, at: now };
    this.#show();
    this.#tellOutcome();
  }

  #show() {
    const words = this.#search.value.trim().toLowerCase();
    const fits = this.#loras.filter((lora) => lora.id.toLowerCase().includes(words));
    const others = fits.filter((lora) => !this.#isOfNote(lora));
    const most = words || others.length <= SHOWN ? SHOWN : 0;
    const shown = new Set([...fits.filter((lora) => this.#isOfNote(lora)), ...others.slice(0, most)]);
    // In the order of their names, whatever becomes of them: a button in use stays where it is.
    reconcile(
      this.#list,
      fits.filter((lora) => shown.has(lora)),
      (lora) => this.#create(lora),
      (element, lora) => this.#update(element, lora),
      (element) => element.contains(document.activeElement) && this.#search.focus(),
    );
    byId("holdings-find").hidden = this.#loras.length === 0;
    setText(byId("holdings-more"), this.#more(fits.length - shown.size, words));
  }

  #isOfNote(lora) {
    const { id, loaded_on: on, pinned_for: pinned, load_errors: errors } = lora;
    return on.length + pinned.length + errors.length > 0 || this.#used.has(id);
  }

  #more(left, words) {
    if (this.#loras.length === 0) return "There is no file in the server's LoRA folder.";
    if (left && words) return `… and ${grouped(left)} more. Type more of the name.`;
    if (left) return `${counted(left, "LoRA")} on no worker: find one by its name.`;
    return words && this.#list.childElementCount === 0 ? "No LoRA has this in its name." : "";
  }

  #create({ id }) {
    const buttons = Object.entries(ACTIONS).map(([action, label]) => {
      const button = make(
        "button",
        {
          type: "button",
          className: "quiet",
          "data-action": action,
          "aria-label": `${label} ${id}`,
          title: EXPLAINED[action],
        },
        label,
      );
      button.addEventListener("click", () => this.#ask(button, id, action));
      return button;
    });
    return make(
      "li",
      { className: "holding" },
      make(
        "div",
        { className: "line" },
        make("span", { className: "title", title: id, dir: "auto" }, id),
        make("span", { className: "pill" }),
      ),
      make("div", { className: "places" }),
      make("ul", { className: "refused" }),
      make("div", { className: "line buttons" }, ...buttons),
      make("div", { className: "problem refusal", role: "alert" }),
    );
  }

  #update(element, lora) {
    const places = this.#kinds.map((kind) => this.#place(lora, kind));
    const pill = element.querySelector(".pill");
    const pinned = lora.pinned_for.length > 0;
    const refused = lora.load_errors.length > 0;
    const held = lora.loaded_on.length > 0;
    setText(pill, pinned ? "pinned" : held ? "loaded" : refused ? "refused" : "");
    pill.hidden = !pill.textContent;
    pill.classList.toggle("good", pinned || held);
    pill.classList.toggle("bad", pill.textContent === "refused");
    const told = places.filter((place) => place.pinned || place.on.length);
    element.querySelector(".places").replaceChildren(
      ...(told.length ? told.map((place) => this.#told(place)) : ["on no worker"]).map((text) =>
        make("div", { className: "figure" }, text),
      ),
    );
    this.#showRefusals(element.querySelector(".refused"), lora);
    const { on, pinned: stays } = this.#place(lora, this.#purpose.value);
    const ready = this.#ready(this.#purpose.value);
    const everywhere = ready.length > 0 && ready.every((name) => on.includes(name));
    this.#offer(element, {
      load: lora.usable && !stays && !everywhere,
      pin: lora.usable && !stays,
      unload: held || pinned,
    });
  }

  /** How the model for a kind of task stands to a LoRA. */
  #place({ loaded_on: names, pinned_for: kinds }, kind) {
    const on = names.filter((name) => this.#workers.some((one) => one.id === name && one.kind === kind));
    return { kind, on, pinned: kinds.includes(kind) };
  }

  #ready(kind) {
    return this.#workers.filter((one) => one.kind === kind && one.status === "ready").map((one) => one.id);
  }

  #told({ kind, on, pinned }) {
    const where = on.length ? `on ${on.join(", ")}` : "on no worker yet";
    if (this.#kinds.length < 2) return where;
    return `for ${PURPOSES[kind]} ${where}${pinned ? " · pinned" : ""}`;
  }

  #showRefusals(list, { usable, problem, load_errors: errors }) {
    const workers = new Map(); // by what they say, which all of them may say
    for (const { worker, message } of errors) {
      workers.set(message, [...(workers.get(message) ?? []), worker]);
    }
    const texts = [...workers].map(([message, names]) => `${names.join(", ")}: ${message}`);
    if (!usable) texts.unshift(`This file ${problem}`);
    const items = texts.map((text) => ({ id: text }));
    reconcile(list, items, ({ id }) => make("li", { className: "problem" }, id), () => {});
  }

  #offer(element, offered) {
    const buttons = [...element.querySelectorAll("[data-action]")];
    const focused = buttons.find((button) => button === document.activeElement);
    for (const button of buttons) button.hidden = !offered[button.dataset.action];
    element.querySelector(".buttons").hidden = buttons.every((button) => button.hidden);
    if (focused?.hidden) (buttons.find((button) => !button.hidden) ?? this.#search).focus();
  }

  async #ask(button, id, action) {
    const element = button.closest("li");
    const refusal = element.querySelector(".refusal");
    if (element.dataset.busy) return; // it is not disabled, which would take the focus from it
    element.dataset.busy = "yes";
    setText(refusal, "");
    const kinds = action === "unload" ? this.#heldFor(id) : [this.#purpose.value];
    try {
      for (const kind of kinds) await json("/v1/loras", { name: id, action, kind });
      this.#used.add(id);
      this.#asked = { id, action, kinds, at: performance.now() };
      this.#say(`${ACTIONS[action]} ${id}: each worker does it after the task that it runs.`);
      this.#changed();
    } catch (error) {
      setText(refusal, error.message);
    } finally {
      delete element.dataset.busy;
    }
  }

  /** The kinds of task for which a LoRA is held or pinned. */
  #heldFor(id) {
    const lora = this.#loras.find((one) => one.id === id);
    return Object.keys(PURPOSES).filter((kind) => {
      const { on, pinned } = this.#place(lora, kind);
      return on.length > 0 || pinned;
    });
  }

  /** Say what became of what was asked for, once every worker that can has done it or refused. */
  #tellOutcome() {
    if (!this.#asked) return;
    const { id, action, kinds } = this.#asked;
    const lora = this.#loras.find((one) => one.id === id);
    const on = lora ? kinds.flatMap((kind) => this.#place(lora, kind).on) : [];
    const refused = (lora?.load_errors ?? []).map(({ worker }) => worker);
    const ready = kinds.flatMap((kind) => this.#ready(kind));
    const loads = action !== "unload";
    const done = loads
      ? ready.length > 0 && ready.every((name) => on.includes(name) || refused.includes(name))
      : on.length === 0;
    if (!done) return;
    this.#asked = null;
    const where = `${id} is on ${on.length ? on.join(", ") : "no worker"}`;
    this.#say(loads && refused.length ? `${where}; refused by ${refused.join(", ")}.` : `${where}.`);
  }

  #tellFound() {
    if (!this.#typed) return;
    const found = this.#list.childElementCount;
    this.#say(this.#search.value.trim() ? `${counted(found, "LoRA")} shown.` : "");
  }

  #say(text) {
    this.#typed = false;
    setText(byId("holdings-news"), text);
  }
}
