// Two pictures in one place, and a slider that says how much of each is seen.

import { make } from "./dom.js";
import { Stage } from "./stage.js";

/**
 * @param before, after elements <img>, of whatever sizes: the second one is fitted to the first.
 * @param label what the slider is called.
 */
export function slider(sight, before, after, label, names) {
  before.classList.add("under");
  after.classList.add("over");
  const stage = new Stage(sight, before, after);
  const line = make("div", { className: "line" });
  const input = make("input", {
    type: "range", min: 0, max: 100, value: 50, className: "slide", ariaLabel: label,
  });
  const show = () => {
    stage.element.style.setProperty("--cut", `${input.value}%`);
    input.setAttribute("aria-valuetext", `${input.value} % ${names[0]}`);
  };
  input.addEventListener("input", show);
  show();
  stage.element.append(
    line,
    make("span", { className: "side left" }, names[0]),
    make("span", { className: "side right" }, names[1]),
  );
  return make("div", { className: "slider" }, stage.element, input);
}
