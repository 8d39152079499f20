// Numbers and times as people read them.

const GIB = 1024 ** 3;
const number = new Intl.NumberFormat("en");

/** 12345 as 12,345. */
export const grouped = (value) => number.format(value);

/** Count with its noun: "1 picture", "3 pictures". */
export const counted = (count, noun) => `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Seconds as "0.4 s", "12 s", "3 min", "2.5 h". */
export function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A Unix time as date and time of this place. */
export const date = (moment) =>
  new Date(moment * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A Unix time as hours and minutes of this place. */
export const clock = (moment) =>
  new Date(moment * 1000).toLocaleTimeString(undefined, { timeStyle: "short" });

/** Bytes in GiB, as GPUs are sold. */
export const gigabytes = (bytes) => `${(bytes / GIB).toFixed(bytes < 10 * GIB ? 1 : 0)}`;

/** At most so many characters of a text. */
export function shortened(text, most) {
  const characters = Array.from(text.slice(0, 2 * most));
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : text;
}
