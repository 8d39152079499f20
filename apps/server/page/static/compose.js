// The form: a prompt or an edit becomes a job.

import { Unreachable, json, pathOf, randomName, randomSeed, submit } from "./api.js";
import { byId, setText } from "./dom.js";
import { LoraPicker } from "./loras.js";
import { lorasOf } from "./parameters.js";
import { pathOfSource } from "./pictures.js";
import { Sources } from "./sources.js";
import { counted } from "./words.js";

const NUMBERS = ["width", "height", "num_inference_steps", "guidance_scale", "true_cfg_scale"];
const MOST_SOURCES = 16;
const EXACT = 2 ** 53; // larger whole numbers are sent as text

/** The form, with what it was asked last. */
export class Compose {
  #form = byId("compose");
  #loras = new LoraPicker();
  #sources = new Sources(byId("sources"), byId("upload"), MOST_SOURCES, () => this.#arrange());
  #mask = new Sources(byId("mask"), byId("mask-upload"), 1, () => this.#arrange());
  #takesMasks = false;
  #asked = { body: "", name: "" };
  #unanswered = false; // when it was sent last
  #waiting = ""; // id of the job that the form says is in the queue
  #begun = ""; // id of the newest job that is not there any more

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#form.addEventListener("input", () => this.#arrange());
    this.#form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
    document.addEventListener("paste", (event) => this.#take(event.clipboardData, event));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => this.#take(event.dataTransfer, event));
    this.#arrange();
  }

  /** Read what the server can do. */
  async refresh() {
    if (this.#unanswered) this.#say("", "The server is there again. What you wrote was not sent.");
    this.#unanswered = false;
    const [models] = await Promise.all([json("/v1/models"), this.#loras.refresh()]);
    const kinds = new Set(models.data.flatMap((model) => model.kinds));
    for (const radio of this.#form.elements.kind) {
      radio.disabled = kinds.size > 0 && !kinds.has(radio.value);
      radio.parentElement.title = radio.disabled ? "This server has no model for it." : "";
      if (radio.disabled) radio.checked = false;
    }
    this.#takesMasks = models.data.some((model) => model.takes_masks);
    const first = [...this.#form.elements.kind].find((radio) => !radio.disabled);
    if (!this.#form.elements.kind.value && first) first.checked = true;
    this.#arrange();
  }

  /** A job stands otherwise than before: what the form says of the queue is not to outlast it. */
  hear({ id, status }) {
    if (status === "queued") return;
    this.#begun = id;
    if (id === this.#waiting) this.#say("", "");
  }

  /** Fill in what a result was asked for. */
  change(result) {
    const { task } = result;
    this.#form.reset();
    this.#form.elements.kind.value = task.kind;
    const { elements } = this.#form;
    for (const name of [...NUMBERS, "negative_prompt", "seed"]) {
      elements[name].value = task[name] ?? "";
    }
    elements.prompt.value = task.prompt ?? task.instruction ?? "";
    this.#loras.value = lorasOf(task);
    this.#clearPictures();
    for (const reference of task.source_images ?? []) {
      this.#sources.addOwn(reference, pathOfSource(reference));
    }
    if (task.mask) this.#mask.addOwn(task.mask, pathOfSource(task.mask));
    this.#show();
  }

  /** Have a picture of the server edited. */
  edit(result) {
    this.#form.reset(); // steps and LoRAs of a model that draws are not for one that edits
    this.#loras.value = [];
    this.#form.elements.kind.value = "edit";
    this.#clearPictures();
    this.#sources.addOwn(result.id, pathOf(result.thumbnail_url));
    this.#show();
  }

  /** Fill in a prompt to try. */
  suggest(prompt) {
    this.#form.elements.kind.value = "generate";
    this.#form.elements.prompt.value = prompt;
    this.#show();
  }

  #clearPictures() {
    this.#sources.clear();
    this.#mask.clear();
  }

  #show() {
    this.#arrange();
    this.#say("", "");
    this.#form.scrollIntoView({ block: "nearest" });
    this.#form.elements.prompt.focus();
  }

  #take(data, event) {
    if (!data?.files.length) return;
    event.preventDefault();
    if (this.#form.elements.kind.value !== "edit") {
      const edits = [...this.#form.elements.kind].find((radio) => radio.value === "edit");
      if (edits.disabled) return;
      edits.checked = true;
    }
    if (!this.#sources.addFiles(data.files)) this.#say("That was no picture.", "");
    this.#arrange();
  }

  #arrange() {
    const { elements } = this.#form;
    const edits = elements.kind.value === "edit";
    byId("sources-part").hidden = !edits;
    byId("mask-part").hidden = !this.#takesMasks && this.#mask.count === 0;
    byId("true-cfg-part").hidden = !edits;
    setText(byId("compose-title"), edits ? "New edit" : "New picture");
    setText(byId("prompt-label"), edits ? "Instruction" : "Prompt");
    elements.prompt.placeholder = edits ? "What to change" : "What the picture should show";
    const count = Number(elements.count.value);
    setText(byId("send"), (edits ? "Edit" : "Draw") + (count > 1 ? ` ${count}` : ""));
    const set = [...NUMBERS, "negative_prompt", "seed"].filter((name) => elements[name].value).length;
    setText(byId("more-count"), set ? String(set) : "");
  }

  async #send() {
    this.#say("", "");
    this.#unanswered = false;
    const problem = this.#problem();
    if (problem) return this.#say(problem, "");
    byId("send").disabled = true;
    try {
      const job = await this.#submit();
      if (job.counts.failed === job.counts.total) await this.#sayWhy(job);
      else if (job.id === this.#begun) this.#say("", "");
      else {
        this.#say("", accepted(job));
        this.#waiting = job.id;
      }
    } catch (error) {
      this.#say(error.message, "");
      this.#unanswered = error instanceof Unreachable;
      for (const pictures of [this.#sources, this.#mask]) pictures.forgetSent();
    } finally {
      byId("send").disabled = false;
    }
  }

  async #submit() {
    const edits = this.#form.elements.kind.value === "edit";
    const tell = (text) => this.#say("", text);
    const pictures = edits ? await this.#sources.references(tell) : [];
    const [mask] = edits ? await this.#mask.references(tell) : [];
    const tasks = this.#tasks(pictures, mask);
    // The same form sent twice because no answer came is one job.
    const body = JSON.stringify(tasks);
    if (body !== this.#asked.body) this.#asked = { body, name: randomName() };
    const job = await submit(tasks, this.#asked.name);
    this.#asked = { body: "", name: "" };
    return job;
  }

  #tasks(pictures, mask) {
    const { elements } = this.#form;
    const edits = elements.kind.value === "edit";
    const task = { kind: elements.kind.value };
    task[edits ? "instruction" : "prompt"] = elements.prompt.value;
    if (edits) task.source_images = pictures;
    if (mask) task.mask = mask;
    for (const name of NUMBERS) {
      const { value } = elements[name];
      if (value !== "" && (edits || name !== "true_cfg_scale")) task[name] = Number(value);
    }
    if (elements.negative_prompt.value) task.negative_prompt = elements.negative_prompt.value;
    const loras = this.#loras.value;
    if (loras.length) task.loras = loras;
    const first = elements.seed.value === "" ? BigInt(randomSeed()) : BigInt(elements.seed.value);
    const count = Number(elements.count.value);
    return Array.from({ length: count }, (_, place) => ({ ...task, seed: seed(first, place) }));
  }

  #problem() {
    const { elements } = this.#form;
    if (!elements.prompt.value.trim()) {
      elements.prompt.focus();
      return elements.kind.value === "edit" ? "Say what to change." : "Say what the picture should show.";
    }
    if (elements.kind.value === "edit" && this.#sources.count === 0) {
      byId("upload").focus();
      return "Choose a picture to edit.";
    }
    const wrong = [...elements].find((element) => element.willValidate && !element.validity.valid);
    if (!wrong) return "";
    if (byId("more").contains(wrong)) byId("more").open = true;
    wrong.focus();
    const label = wrong.labels?.[0]?.textContent ?? wrong.getAttribute("aria-label") ?? wrong.name;
    return `${label}: ${wrong.validationMessage}`;
  }

  async #sayWhy(job) {
    const { data } = await json(`/v1/jobs/${job.id}/results?limit=1`);
    this.#say(data[0]?.error ?? "It was refused.", "");
  }

  #say(problem, news) {
    this.#waiting = "";
    setText(byId("compose-error"), problem);
    this.#form.elements.prompt.setAttribute("aria-invalid", String(problem !== ""));
    setText(byId("compose-news"), news);
  }
}

function accepted(job) {
  const ahead = job.queue_position;
  return `In the queue${ahead ? `, after ${counted(ahead, "task")}` : ""}.`;
}

function seed(first, place) {
  const value = BigInt.asUintN(64, first + BigInt(place));
  return value < EXACT ? Number(value) : String(value);
}
