// One picture of the gallery.

import { pathOf } from "./api.js";
import { make } from "./dom.js";
import { promptOf } from "./parameters.js";
import { showWhenNear } from "./pictures.js";
import { shortened } from "./words.js";

const MOST_READ = 200; // characters of a prompt that a screen reader says

/** @param open is called with the result when somebody wants to see it. */
export function tile(result, open) {
  const words = shortened(promptOf(result), MOST_READ);
  const button = make("button", { type: "button", className: "tile", tabIndex: -1, title: words });
  if (result.thumbnail_url === null) {
    button.append(make("span", { className: "words" }, `Verdict: ${words}`));
  } else {
    const image = make("img", { alt: words, decoding: "async", width: 384, height: 384 });
    showWhenNear(image, pathOf(result.thumbnail_url));
    button.append(image);
  }
  button.addEventListener("click", () => open(result));
  return make("li", { "data-id": result.id }, button);
}
