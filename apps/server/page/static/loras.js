// LoRAs in the form: those of the server's folder, each with its strength.

import { json } from "./api.js";
import { byId, make, setText } from "./dom.js";
import { counted } from "./words.js";

const MOST = 16; // of one task
const STRENGTH = 1;

/** Choose LoRAs by name. */
export class LoraPicker {
  #names = new Set();
  #input = byId("lora");
  #chosen = byId("loras-chosen");

  constructor() {
    byId("lora-button").addEventListener("click", () => this.#add());
    this.#input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.#add();
    });
    // A name that was picked from the list comes at once, letters come one by one.
    this.#input.addEventListener("input", (event) => {
      this.#say("");
      const picked = !event.inputType || event.inputType === "insertReplacementText";
      if (picked && this.#names.has(this.#input.value)) this.#add();
    });
  }

  /** Read which LoRAs there are. */
  async refresh() {
    const { data } = await json("/v1/loras");
    const usable = data.filter((lora) => lora.usable);
    const unusable = data.length - usable.length;
    this.#names = new Set(usable.map((lora) => lora.id));
    byId("loras-add").hidden = usable.length === 0;
    byId("loras-none").hidden = usable.length > 0;
    setText(byId("loras-none"), unusable
      ? `None of the ${counted(unusable, "file")} in the server's LoRA folder can be used.`
      : "None yet. Put .safetensors files into the server's LoRA folder (lora_dir).");
    this.#input.placeholder = `Choose of ${usable.length}`;
    byId("lora-names").replaceChildren(
      ...usable.map(({ id, base_model: base, rank }) =>
        make("option", { value: id }, [base, rank && `rank ${rank}`].filter(Boolean).join(", "))),
    );
  }

  /** Those that are chosen, as tasks name them. */
  get value() {
    return [...this.#chosen.children].map((item) => ({
      path: item.dataset.name,
      strength: Number(item.querySelector("input").value),
    }));
  }

  set value(loras) {
    this.#chosen.replaceChildren(
      ...loras.map(({ path, strength }) => this.#item(path, strength ?? STRENGTH)),
    );
  }

  #add() {
    const name = this.#input.value.trim();
    const { value } = this;
    if (!name) return;
    if (!this.#names.has(name)) return this.#say(`There is no LoRA called “${name}”.`);
    if (value.some((lora) => lora.path === name)) return this.#say(`${name} is chosen already.`);
    if (value.length === MOST) return this.#say(`A picture takes ${MOST} LoRAs at most.`);
    this.#chosen.append(this.#item(name, STRENGTH));
    this.#input.value = "";
    this.#say("");
  }

  #item(name, strength) {
    const input = make("input", {
      type: "number", min: -10, max: 10, step: "any", required: true, value: strength,
      "aria-label": `Strength of ${name}`, inputMode: "decimal",
    });
    const remove = make("button", { type: "button", className: "quiet", "aria-label": `Remove ${name}` }, "×");
    const item = make("li", { "data-name": name }, make("span", { title: name }, name), input, remove);
    remove.addEventListener("click", () => {
      item.remove();
      this.#input.focus();
    });
    return item;
  }

  #say(text) {
    setText(byId("lora-problem"), text);
  }
}
