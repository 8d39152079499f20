// The items of the page, in their order, with what is read from them.

import { shortened } from "./words.js";

export const STATES = {
  done: "Done",
  failed: "Failed",
  running: "Being worked on",
  waiting: "Not done yet",
};
const PEFT = /([^/]+)\/adapter_model\.safetensors$/; // a LoRA that is called by its folder
const WEIGHTS = /\.(safetensors|sft|st|ckpt|pt|pth|bin)$/i;
const found = new WeakMap(); // of items: their words, in small letters

/** All items of the parts that are there. */
export const allItems = () => gallery.parts.flat();

/** What the picture was to show. */
export const promptOf = ({ task, name }) => String(task?.prompt ?? task?.instruction ?? name);

/** Its LoRAs as {name, strength}. */
export function lorasOf({ task = {} }) {
  const loras = task.lora_path
    ? [{ path: task.lora_path, strength: task.lora_strength ?? 1 }]
    : Array.isArray(task.loras) ? task.loras : [];
  return loras.map(({ path, strength }) => ({
    name: String(path).match(PEFT)?.[1] ?? String(path).split("/").at(-1).replace(WEIGHTS, ""),
    strength: strength ?? 1,
  }));
}

/** "style 0.8 + other". */
export const loraWords = (item) =>
  lorasOf(item)
    .map(({ name, strength }) => (strength === 1 ? name : `${name} ${strength}`))
    .join(" + ");

/** The newest verdict that has scores, or the newest of all. */
export const verdictOf = (item) =>
  item.verdicts?.findLast((verdict) => verdict.scores) ?? item.verdicts?.at(-1);

/** It has verdicts, and none of them has scores. */
export const lacksScore = (item) =>
  Boolean(item.verdicts?.length) && !item.verdicts.some(({ scores }) => scores);

/** One score of an item; undefined where it has none. */
export const scoreOf = (item, name) => verdictOf(item)?.scores?.[name];

/** Names of all scores, the overall one (O) first. */
export function scoreNames(items) {
  const names = new Set();
  for (const item of items) {
    for (const name of Object.keys(verdictOf(item)?.scores ?? {})) names.add(name);
  }
  return [...names].sort((a, b) => (b === "O") - (a === "O"));
}

/** A score as people read it. */
export const scoreWords = (value) =>
  value === undefined ? "–" : Number.isInteger(value) ? String(value) : value.toFixed(2);

/** Whether all words stand somewhere in what is known of an item. */
export function holds(item, words) {
  let text = found.get(item);
  if (text === undefined) {
    text = [promptOf(item), item.name, item.file, item.seed, loraWords(item), item.error, item.tweet,
      item.category, item.worker]
      .filter(Boolean)
      .join("\n")
      .toLowerCase();
    found.set(item, text);
  }
  return words.every((word) => text.includes(word));
}

/** An error without the name of what it is about, so that those of one reason are alike. */
export const reasonOf = (item) =>
  shortened(String(item.error ?? "No reason was recorded.").replace(/\s+/g, " ").trim(), 300);
