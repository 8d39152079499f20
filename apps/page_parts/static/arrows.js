// Where arrow keys lead in a grid that is one tab stop (roving tabindex).
// https://www.w3.org/WAI/ARIA/apg/practices/keyboard-interface/

/**
 * The place that a key leads to from another one.
 * @returns undefined for keys that lead nowhere.
 */
export function placeAfter(key, place, columns, count) {
  switch (key) {
    case "ArrowRight":
      return Math.min(place + 1, count - 1);
    case "ArrowLeft":
      return Math.max(place - 1, 0);
    case "ArrowDown":
      return Math.min(place + columns, count - 1);
    case "ArrowUp":
      return place >= columns ? place - columns : place;
    case "Home":
      return 0;
    case "End":
      return count - 1;
    default:
      return undefined;
  }
}
