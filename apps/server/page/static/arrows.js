// One tab stop for a grid of buttons: arrow keys move in it (roving tabindex).
// https://www.w3.org/WAI/ARIA/apg/practices/keyboard-interface/

/** @param list whose items each have one button. */
export function moveByArrows(list) {
  const buttons = () => list.children;
  list.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    const places = [...buttons()];
    const place = places.indexOf(item);
    if (place < 0) return;
    const next = target(event.key, place, places);
    if (next === undefined) return;
    event.preventDefault();
    focus(places[Math.max(0, Math.min(next, places.length - 1))]);
  });
  list.addEventListener("focusin", (event) => choose(event.target.closest("li")));

  function choose(item) {
    for (const button of list.querySelectorAll("button[tabindex='0']")) button.tabIndex = -1;
    const button = item?.querySelector("button");
    if (button) button.tabIndex = 0;
  }

  function focus(item) {
    choose(item);
    item?.querySelector("button").focus();
  }

  /** Have one button to be reached by Tab; to be called when the list has changed. */
  return () => {
    if (!list.querySelector("button[tabindex='0']")) choose(list.firstElementChild);
  };
}

function target(key, place, places) {
  switch (key) {
    case "ArrowRight":
      return place + 1;
    case "ArrowLeft":
      return place - 1;
    case "ArrowDown":
      return place + columns(places);
    case "ArrowUp":
      return place - columns(places) >= 0 ? place - columns(places) : place;
    case "Home":
      return 0;
    case "End":
      return places.length - 1;
    default:
      return undefined;
  }
}

function columns(places) {
  const top = places[0].offsetTop;
  const next = places.findIndex((item) => item.offsetTop !== top);
  return next < 0 ? places.length : next;
}
