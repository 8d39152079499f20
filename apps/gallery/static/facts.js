// What is known of an item, in words.

import { make } from "./dom.js";
import { lorasOf, scoreWords, STATES } from "./items.js";
import { date, duration } from "./words.js";

const WORDS = {
  width: "Width", height: "Height", num_inference_steps: "Steps", guidance_scale: "Guidance",
  true_cfg_scale: "True CFG", sampler: "Sampler", model: "Model", negative_prompt: "Negative prompt",
  cfg: "CFG",
};

/** Names and values of what an item tells, in the order in which they are shown. */
export function factsOf(item) {
  const { task = {}, used = {} } = item;
  const size = used.width && used.height ? `${used.width} × ${used.height}` : undefined;
  const value = (name) => used[name] ?? task[name];
  const loras = lorasOf(item).map(({ name, strength }) => `${name} (${strength})`);
  const facts = [
    ["State", item.missing ? "The picture is gone" : STATES[item.state]],
    ["Name", item.name],
    ["File", item.file],
    ["Tweet", item.tweet],
    ["Category", item.category],
    ["Choice", item.choice],
    ["Seed", item.seed],
    ["LoRA", loras.join(", ")],
    ["Size", size],
    ...["num_inference_steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "sampler",
      "model"].map((name) => [WORDS[name], value(name)]),
    ["Time", item.seconds ? duration(item.seconds) : undefined],
    ["Worker", item.worker],
    ["Attempts", item.attempts > 1 ? item.attempts : undefined],
    ["Recorded", item.at ? date(item.at) : undefined],
    ["Cause", item.cause?.replaceAll("_", " ")],
  ];
  return facts.filter(([, words]) => words !== undefined && words !== "" && words !== null);
}

/** A list of facts. */
export const factList = (facts) =>
  make("dl", { className: "parameters" }, ...facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", { dir: "auto" }, String(value)))));

/** What judges said of an item. */
export function verdictList(item, title = "") {
  const verdicts = item.verdicts ?? [];
  return verdicts.toReversed().map(({ judge, scores, calls = [], error }) =>
    make("section", { className: "verdict" },
      make("h3", { dir: "auto" }, title || judge),
      scores && make("ul", { className: "scores" }, ...Object.entries(scores).map(([name, value]) =>
        make("li", {}, make("span", {}, name), make("strong", {}, scoreWords(value))))),
      !scores && make("p", { className: "problem" }, error ?? "No score."),
      ...calls.filter(({ words, problem }) => words || problem).map(({ name, words, problem }) =>
        make("details", { open: verdicts.length === 1 },
          make("summary", {}, `The judge's words on ${name}`),
          problem && make("p", { className: "problem", dir: "auto" }, problem),
          make("blockquote", { dir: "auto" }, words)))));
}
