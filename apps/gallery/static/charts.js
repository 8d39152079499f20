// Scores by category: means as bars, all single scores as dots, two runs beside each other.

import { byId, make } from "./dom.js";
import { scoreNames, scoreOf, scoreWords } from "./items.js";
import { counted } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const NONE = "no category";

/** The view of the scores. @param choose is called with a category that is to be shown. */
export function showCharts(items, choose) {
  const names = scoreNames(items);
  byId("charts").replaceChildren(
    ...(gallery.run.table ? [differences(gallery.run.table)] : []),
    ...names.map((name) => chart(items, name, choose)),
    outcomes(items),
  );
}

/** Paired differences of two runs, as the command prints them. */
function differences({ columns, rows, notes }) {
  return make("section", { className: "card chart" },
    make("h3", {}, "Paired differences"),
    make("div", { className: "scrolls", tabIndex: 0, role: "group", ariaLabel: "Paired differences" },
      make("table", { className: "figures" },
        make("thead", {}, make("tr", {}, ...columns.map((words) => make("th", { scope: "col" }, words)))),
        make("tbody", {}, ...rows.map(([name, ...figures]) =>
          make("tr", {}, make("th", { scope: "row", dir: "auto" }, name),
            ...figures.map((figure) => make("td", {}, figure))))))),
    ...notes.map((note) => make("p", { className: "hint", dir: "auto" }, note)));
}

function chart(items, name, choose) {
  const runs = items.some((item) => item.other) ? ["A", "B"] : [""];
  const of = (item, run) => scoreOf(run === "B" ? item.other : item, name);
  const groups = grouped(items);
  const values = items.flatMap((item) => runs.map((run) => of(item, run))).filter(known);
  const top = values.length ? nice(Math.max(...values)) : 1;
  const rows = [...groups].map(([category, members]) => ({
    category,
    bars: runs.map((run) => members.map((item) => of(item, run)).filter(known)),
  }));
  const overall = runs.map((_, run) => rows.map(({ bars }) => bars[run]).filter((b) => b.length).map(mean));
  return make("section", { className: "card chart" },
    make("h3", {}, name === "O" ? "O, overall" : name),
    make("p", { className: "hint" },
      "The bar is the mean of a category, each dot one picture. The mean of the categories is ",
      overall.map((means, run) => `${runs[run] && `${runs[run]} `}${means.length ? scoreWords(mean(means)) : "–"}`).join(", "),
      "."),
    make("ul", { className: "bars" }, ...rows.map(({ category, bars }) =>
      make("li", {},
        make("button", { type: "button", className: "quiet", dir: "auto", title: "Show these pictures",
          onclick: () => choose(category === NONE ? "\u0000none" : category) }, category),
        make("div", { className: "tracks" }, ...bars.map((numbers, run) =>
          track(numbers, top, runs[run])))))));
}

function track(numbers, top, run) {
  const value = numbers.length ? mean(numbers) : undefined;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("viewBox", "0 0 1000 20");
  const add = (tag, attributes) => {
    const element = document.createElementNS(SVG, tag);
    for (const [key, text] of Object.entries(attributes)) element.setAttribute(key, text);
    svg.append(element);
  };
  add("rect", { width: 1000, height: 20, class: "ground" });
  if (value !== undefined) add("rect", { width: (1000 * value) / top, height: 20, class: `bar ${run}` });
  for (const number of numbers) {
    add("rect", { x: (1000 * number) / top - 2, y: 7, width: 4, height: 6, class: "dot" });
  }
  return make("div", { className: "track" }, svg,
    make("span", { className: "figure" },
      `${run && `${run} `}${scoreWords(value)} (${counted(numbers.length, "score")})`));
}

/** How many have a score, and why the others have none. */
function outcomes(items) {
  const rows = [...grouped(items)].map(([category, members]) => {
    const scored = members.filter((item) => item.verdicts?.some(({ scores }) => scores)).length;
    const failed = members.filter((item) => item.state === "failed").length;
    return make("tr", {}, make("th", { scope: "row", dir: "auto" }, category),
      make("td", {}, String(members.length)), make("td", {}, String(scored)),
      make("td", {}, String(failed)), make("td", {}, String(members.length - scored - failed)));
  });
  return make("section", { className: "card" }, make("h3", {}, "How many have a score"),
    make("div", { className: "scrolls", tabIndex: 0, role: "group", ariaLabel: "How many have a score" },
      make("table", { className: "figures" },
        make("thead", {}, make("tr", {}, ...["Category", "Edits", "Scored", "Edit failed", "No score"].map(
          (words) => make("th", { scope: "col" }, words)))),
        make("tbody", {}, ...rows))));
}

function grouped(items) {
  const groups = new Map();
  for (const item of items) {
    const category = item.category ?? NONE;
    if (!groups.has(category)) groups.set(category, []);
    groups.get(category).push(item);
  }
  return groups;
}

const known = (value) => typeof value === "number";
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const nice = (value) => (value <= 1 ? 1 : value <= 5 ? 5 : value <= 10 ? 10 : Math.ceil(value / 10) * 10);
