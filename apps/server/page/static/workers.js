// Workers: what each of them has loaded and does, and how full its memory is.

import { call, json } from "./api.js";
import { byId, make, reconcile, setText } from "./dom.js";
import { notReady } from "./notice.js";
import { counted, gigabytes } from "./words.js";

const KINDS = { generate: "draws", edit: "edits", score: "scores" };
const GOOD = ["ready"];
const BAD = ["given up", "stopped"];

/**
 * Read how the workers are, and show it.
 * @returns the workers, and whether any of them is about to change.
 */
export async function refresh() {
  const { data, models } = await json("/v1/workers");
  reconcile(byId("workers"), data, create, update);
  const ready = data.some((worker) => worker.status === "ready" && !worker.drained);
  notReady(ready ? "" : whyNotReady(data, models));
  setText(byId("workers-count"), String(data.length));
  const waiting = models.reduce((sum, model) => sum + model.waiting, 0);
  const busy = data.filter((worker) => worker.busy_for > 0).length;
  setText(
    byId("summary"),
    [
      data.length ? `${busy} of ${counted(data.length, "worker")} busy` : "no worker",
      waiting ? `${counted(waiting, "task")} waiting` : null,
    ].filter(Boolean).join(" · "),
  );
  return { workers: data, busy: busy > 0 || waiting > 0 || !ready };
}

function whyNotReady(workers, models) {
  const given = models.filter((model) => model.given_up).map((model) => model.given_up);
  if (given.length) return given.join(" ");
  const loading = workers.some((worker) => /load|start/.test(worker.status));
  if (loading) return "The model is being loaded. What you ask for now begins as soon as it is.";
  if (workers.length === 0) return "No worker was started yet.";
  if (workers.every((worker) => worker.drained)) {
    return "All workers are drained. What you ask for now waits until one of them is resumed.";
  }
  return "No worker takes tasks now.";
}

function create({ id }) {
  const button = make("button", { type: "button", className: "quiet drain" });
  button.addEventListener("click", () => turn(button, id));
  const memory = make("meter", { min: 0, low: 0, optimum: 0 });
  return make(
    "li",
    { className: "worker" },
    make(
      "div",
      { className: "line" },
      make("strong", { className: "name" }),
      make("span", { className: "pill" }),
      button,
    ),
    make("div", { className: "model" }),
    make("div", { className: "lora", hidden: true }),
    make(
      "div",
      { className: "doing" },
      make("progress", {}),
      make("span", { className: "figure" }),
    ),
    make("div", { className: "memory" }, memory, make("span", { className: "figure" })),
    make("div", { className: "problem", hidden: true }),
    make("div", { className: "problem refusal", role: "alert" }),
  );
}

function update(element, worker) {
  const part = (name) => element.querySelector(name);
  setText(part(".name"), worker.id);
  const pill = part(".pill");
  const state = stateOf(worker);
  setText(pill, state);
  pill.classList.toggle("good", GOOD.includes(state) || state === "working");
  pill.classList.toggle("bad", BAD.includes(state));
  const button = part(".drain");
  button.dataset.to = worker.drained ? "undrain" : "drain";
  setText(button, worker.drained ? "Resume" : "Drain");
  button.setAttribute("aria-label", `${button.textContent} ${worker.id}`);
  button.title = worker.drained
    ? "Load its model again and take tasks"
    : "Finish its task, take no more and leave its GPU";
  const kind = KINDS[worker.kind];
  setText(part(".model"), worker.model ? `${worker.model}${kind ? ` · ${kind}` : ""}` : "no model");
  part(".model").title = worker.model ?? "";
  showText(part(".lora"), worker.loras.length ? `LoRA: ${worker.loras.join(", ")}` : "");
  showSteps(part(".doing"), worker);
  showMemory(part(".memory"), worker);
  showText(part(".problem"), worker.reason ?? "");
}

/** Have a worker take no more tasks, or take them again. */
async function turn(button, id) {
  const refusal = button.closest("li").querySelector(".refusal");
  if (button.dataset.busy) return; // it is not disabled, which would take the focus from it
  button.dataset.busy = "yes";
  setText(refusal, "");
  try {
    const { to } = button.dataset;
    await call(`/v1/workers/${encodeURIComponent(id)}/${to}`, { method: "POST" });
    await refresh();
  } catch (error) {
    setText(refusal, error.message);
  } finally {
    delete button.dataset.busy;
  }
}

function stateOf(worker) {
  if (worker.drained && !BAD.includes(worker.status)) {
    return worker.status === "drained" ? "drained" : "draining";
  }
  return worker.status === "ready" && worker.busy_for > 0 ? "working" : worker.status;
}

function showText(element, text) {
  element.hidden = text === "";
  setText(element, text);
}

function showSteps(element, worker) {
  const running = worker.tasks.filter((task) => task.doing === "running");
  element.classList.toggle("idle", !running.length);
  if (!running.length) return setSteps(element, 0, 0, "idle");
  const { step = 0, steps = 0 } = running[0];
  const others = running.length > 1 ? ` · ${running.length} at once` : "";
  const mine = running.some((task) => task.job !== undefined);
  const text = steps ? `step ${step} of ${steps}` : mine ? "running" : "another key's task";
  setSteps(element, step, steps, text + others);
}

function setSteps(element, step, steps, text) {
  const bar = element.querySelector("progress");
  bar.setAttribute("aria-label", "Steps of the running task");
  bar.hidden = !steps;
  bar.max = steps || 1;
  bar.value = step;
  setText(element.querySelector(".figure"), text);
}

function showMemory(element, { id, memory_used: used, memory_total: total }) {
  element.hidden = !total && !used;
  if (element.hidden) return;
  const meter = element.querySelector("meter");
  meter.hidden = !total;
  if (total) {
    meter.max = total;
    meter.high = 0.92 * total;
    meter.value = used ?? 0;
    meter.setAttribute("aria-label", `Memory of ${id}`);
  }
  const of = total ? ` of ${gigabytes(total)}` : "";
  setText(element.querySelector(".figure"), `${used === null ? "?" : gigabytes(used)}${of} GiB`);
}
