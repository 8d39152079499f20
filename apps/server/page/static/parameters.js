// What a task asks for, as a list to be read; and the same once more.

import { randomSeed } from "./api.js";
import { make } from "./dom.js";
import { date, duration } from "./words.js";

const LABELS = {
  negative_prompt: "Negative prompt",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  true_cfg_scale: "True CFG",
  cfg: "CFG",
  working_area: "Working area",
  condition_area: "Condition area",
};
const DONE = { generate: "Drawn", edit: "Edited", score: "Scored" };

/** What is to be seen, or changed. */
export const promptOf = ({ task }) => task.prompt ?? task.instruction ?? "(no prompt)";

/** The parameters of a result as a <dl>. */
export function parameterList(result) {
  const { task } = result;
  const rows = [];
  if (task.width || task.height) rows.push(["Size", `${task.width ?? "auto"} × ${task.height ?? "auto"}`]);
  for (const [name, label] of Object.entries(LABELS)) {
    if (task[name] !== undefined && task[name] !== null) rows.push([label, String(task[name])]);
  }
  rows.push(["Seed", String(result.seed ?? task.seed ?? "none")]);
  const loras = lorasOf(task);
  if (loras.length) {
    rows.push(["LoRAs", loras.map(({ path, strength }) => `${path} (${strength ?? 1})`).join(", ")]);
  }
  if (task.metadata && Object.keys(task.metadata).length) {
    rows.push(["Metadata", JSON.stringify(task.metadata)]);
  }
  const by = [DONE[result.kind] ?? "Done", "by", result.worker ?? "no worker"];
  if (result.success) rows.push(["Made", `${by.join(" ")} in ${duration(result.elapsed)}`]);
  if (result.attempts > 1) rows.push(["Attempts", String(result.attempts)]);
  rows.push(["Asked for", date(result.created_at)]);
  return make(
    "dl",
    { className: "parameters" },
    ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

/** The LoRAs of a task, in whichever way they were given. */
export function lorasOf(task) {
  if (task.loras) return task.loras;
  return task.lora_path ? [{ path: task.lora_path, strength: task.lora_strength ?? 1 }] : [];
}

/** The task of a result, with the same seed or a new one. */
export function sameTask(result, newSeed = false) {
  return newSeed ? { ...result.task, seed: randomSeed() } : result.task;
}
