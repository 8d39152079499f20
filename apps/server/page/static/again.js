// "Run again": a button that hands in the task of a result once more.

import { randomName, submit } from "./api.js";
import { make } from "./dom.js";
import { sameTask } from "./parameters.js";

/**
 * @param result whose task it is about.
 * @param newSeed whether the picture is to be another one.
 */
export function againButton(result, newSeed = false, className = "") {
  const usual = newSeed ? "With a new seed" : "Run again";
  const button = make("button", { type: "button", className }, usual);
  let name = randomName();
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await submit([sameTask(result, newSeed)], name);
      button.textContent = "In the queue";
    } catch (error) {
      button.textContent = "Try again";
      button.title = error.message;
    }
    name = randomName();
    button.disabled = false;
    setTimeout(() => (button.textContent = usual), 3_000);
  });
  return button;
}
