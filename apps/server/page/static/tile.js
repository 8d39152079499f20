// One picture of the gallery: on its way, with what it has come to, and then the picture in its place.

import { pathOf } from "./api.js";
import { make, setText } from "./dom.js";
import { promptOf } from "./parameters.js";
import { show } from "./pictures.js";
import { shortened } from "./words.js";

const MOST_READ = 200; // characters of a prompt that a screen reader says
const DOING = { generate: "Being drawn", edit: "Being edited", score: "Being scored" };
const entries = new WeakMap();

/** @param open is called with the result when somebody wants to see it. */
export function createTile(open) {
  const button = make("button", { type: "button", className: "tile", tabIndex: -1 });
  const item = make("li", {}, button);
  button.addEventListener("click", () => {
    const { result } = entries.get(item);
    if (result) open(result);
  });
  return item;
}

/** @param entry `result` when there is one, before that `running`. */
export function updateTile(item, entry) {
  entries.set(item, entry);
  const button = item.firstElementChild;
  if (!entry.result) showRunning(button, entry.running);
  else if (button.dataset.state !== "done") showResult(button, entry.result);
}

function showResult(button, result) {
  const words = shortened(promptOf(result), MOST_READ);
  button.dataset.state = "done";
  button.title = words;
  button.removeAttribute("aria-label");
  button.removeAttribute("aria-disabled");
  if (result.thumbnail_url === null) {
    button.replaceChildren(make("span", { className: "words", dir: "auto" }, `Verdict: ${words}`));
    return;
  }
  const preview = button.querySelector("img");
  const image = make("img", { alt: words, decoding: "async", width: 384, height: 384 });
  button.replaceChildren(...(preview ? [preview] : []), image);
  for (const end of ["load", "error"]) image.addEventListener(end, () => preview?.remove());
  show(image, pathOf(result.thumbnail_url));
}

function showRunning(button, running) {
  if (button.dataset.state !== "running") {
    const words = shortened(running.title || "no prompt", MOST_READ);
    button.dataset.state = "running";
    button.title = words;
    button.setAttribute("aria-label", `${DOING[running.kind] ?? "In work"}: ${words}`);
    button.setAttribute("aria-disabled", "true"); // there is nothing to open yet
    button.replaceChildren(
      make("span", { className: "words", dir: "auto" }, words),
      make("span", { className: "steps" }),
      make("progress", { ariaHidden: "true" }),
    );
  }
  const { step, steps, preview } = running;
  setText(button.querySelector(".steps"), step ? `Step ${step} of ${steps}` : "Begins");
  const bar = button.querySelector("progress");
  bar.hidden = !steps;
  bar.max = steps || 1;
  bar.value = step;
  if (!preview) return;
  let image = button.querySelector("img");
  if (!image) {
    image = make("img", { alt: "", width: 384, height: 384 }); // the button's label says it all
    button.firstElementChild.after(image); // over the words, once it is there
  }
  show(image, preview);
}
