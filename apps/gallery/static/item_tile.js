// One item in the grid: its picture, or why there is none.

import { make, setText } from "./dom.js";
import { promptOf, scoreOf, scoreWords, STATES } from "./items.js";
import { shortened } from "./words.js";

const MOST_READ = 200; // characters of a prompt that a screen reader says
const items = new WeakMap();

/** @param open is called with the item when somebody wants to see it. */
export function createTile(open) {
  const button = make("button", { type: "button", className: "tile", tabIndex: -1 });
  const element = make("li", {}, button);
  button.addEventListener("click", () => open(items.get(element)));
  return element;
}

/** The item of an element of the grid. */
export const itemOf = (element) => items.get(element);

/**
 * Show an item as it is now.
 * @param marked whether it is one of those to be compared.
 * @param score the name of the score that is shown with it.
 */
export function updateTile(element, item, marked, score) {
  const button = element.firstElementChild;
  if (items.get(element) !== item) {
    items.set(element, item);
    show(button, item);
  }
  button.classList.toggle("chosen", marked);
  button.setAttribute("aria-description", marked ? "marked for comparing" : "");
  const badge = button.querySelector(".badge");
  if (badge) setText(badge, badgeWords(item, score));
  if (badge) badge.hidden = badge.textContent === "";
}

function badgeWords(item, score) {
  if (item.other) {
    const [a, b] = [scoreOf(item, score), scoreOf(item.other, score)];
    if (a === undefined || b === undefined) return "";
    const gap = b - a;
    return `${gap > 0 ? "+" : gap < 0 ? "−" : "±"}${scoreWords(Math.abs(gap))}`;
  }
  const value = scoreOf(item, score);
  return value === undefined ? "" : scoreWords(value);
}

function show(button, item) {
  const words = shortened(promptOf(item), MOST_READ);
  button.title = words;
  button.dataset.state = item.missing ? "failed" : item.state;
  const badge = make("span", { className: "badge", hidden: true });
  if (item.url) {
    button.replaceChildren(...pictures(item, words), badge);
    return;
  }
  const said = item.missing ? "The picture is gone." : (item.error ?? STATES[item.state]);
  button.replaceChildren(
    make("span", { className: "said" },
      make("span", { className: "words", dir: "auto" }, words),
      make("span", { className: "reason", dir: "auto" }, shortened(said, 300))),
    badge,
  );
}

function pictures(item, words) {
  const main = picture(item, words);
  const before = item.sources?.[0];
  if (item.other?.url) return [main, picture(item.other, "", "second")];
  return before ? [main, picture(before, "", "inset")] : [main];
}

/** An <img> of the small copy; where there is none, of the picture itself. */
export function picture({ thumb, url }, alt, className = "") {
  const image = make("img", {
    alt, className, decoding: "async", loading: "lazy", width: 384, height: 384,
  });
  image.addEventListener("error", () => {
    if (thumb && image.getAttribute("src") === thumb && url) image.src = url;
    else image.classList.add("gone");
  });
  image.src = thumb ?? url;
  return image;
}
