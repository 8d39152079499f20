// What a screen reader is told of: now and then, in one sentence.

import { byId } from "./dom.js";
import { counted } from "./words.js";

const PAUSE = 5_000; // milliseconds between two sentences
let finished = 0;
let failed = 0;
let timer = null;

/** A task has its result. */
export function resultCame(success) {
  if (success) finished += 1;
  else failed += 1;
  timer ??= setTimeout(tell, PAUSE);
}

function tell() {
  const parts = [
    finished && `${counted(finished, "picture")} finished`,
    failed && `${counted(failed, "task")} failed`,
  ].filter(Boolean);
  byId("news").textContent = `${parts.join(", ")}.`;
  finished = failed = 0;
  timer = null;
}
