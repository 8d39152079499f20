// Puts the page together: its views, and what is shown when data comes.

import { showCharts } from "./charts.js";
import { Compare } from "./compare.js";
import { byId, gathered, make, setText } from "./dom.js";
import { Filter } from "./filter.js";
import { createTile, itemOf, updateTile } from "./item_tile.js";
import { allItems, reasonOf, scoreNames } from "./items.js";
import { follow } from "./live.js";
import { TileGrid } from "./tile_grid.js";
import { Timeline } from "./timeline.js";
import { Viewer } from "./viewer.js";
import { clock, counted, duration, grouped } from "./words.js";

const SOON = 60; // milliseconds in which news are gathered
const SILENT = 120; // seconds without news after which a run may have been killed
const MOST_REASONS = 6;

let items = []; // all of them
let chosen = []; // those that are shown
let view = "pictures";

const filter = new Filter(showPictures);
const compare = new Compare(() => grid.soon());
const list = {
  beside: (item, step) => chosen[placeOf(item) + step],
  place: (item) => ({ place: placeOf(item) + 1, of: chosen.length }),
  focus: (item) => view === "pictures" && grid.focus(Math.max(0, placeOf(item))),
  mark: (item) => compare.mark(item),
  isMarked: (item) => compare.has(item),
};
const viewer = new Viewer(list);
const timeline = new Timeline((item) => viewer.open(item));
const grid = new TileGrid(byId("pictures"), {
  create: () => createTile((item) => viewer.open(item)),
  update: (element, item) => updateTile(element, item, compare.has(item), filter.score ?? scoreNames(items)[0]),
  atEnd: () => {},
  ended: () => true,
});

byId("pictures").addEventListener("keydown", (event) => {
  if (event.key !== "c" || event.ctrlKey || event.metaKey) return;
  const item = itemOf(event.target.closest("li"));
  if (item) compare.mark(item);
});
addEventListener("hashchange", showView);
gallery.heard = gathered(show, SOON);
if (gallery.run) show();
else follow();

function placeOf(item) {
  return chosen.findIndex(({ id }) => id === item.id);
}

function show() {
  items = allItems();
  notice();
  if (!gallery.run) return;
  summary();
  filter.offer(items);
  failures();
  views();
  showPictures();
  if (view === "workers") timeline.show();
  if (view === "scores") showCharts(items, chooseCategory);
}

function showPictures() {
  chosen = filter.chosen(items);
  const all = chosen.length === items.length;
  setText(byId("results"), all ? counted(items.length, "picture")
    : `${grouped(chosen.length)} of ${counted(items.length, "picture")}`);
  byId("empty").hidden = chosen.length > 0 || !gallery.run;
  grid.show(chosen);
  for (const button of byId("failures-list").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.value === filter.reason));
  }
}

function summary() {
  const { counts } = gallery.run;
  const run = gallery.timeline?.at(-1);
  const words = { done: "done", failed: "failed", running: "being worked on", waiting: "not done yet" };
  const parts = Object.entries(words)
    .filter(([state]) => counts[state])
    .map(([state, word]) => `${grouped(counts[state])} ${word}`);
  if (run && run.end > run.start) parts.push(duration(run.end - run.start));
  if (gallery.run.says) parts.push(gallery.run.says);
  setText(byId("summary"), parts.join(" · "));
}

function notice() {
  const element = byId("notice");
  const { run } = gallery;
  let words = "";
  if (!run && gallery.missing) {
    words = "The data of this page lies in the folder .gallery beside it, and is not there: copy " +
      "the whole folder, or write the page again with python gallery.py FOLDER.";
  } else if (run?.running) {
    const silent = Date.now() / 1000 - run.at;
    words = silent > SILENT
      ? `No news since ${clock(run.at)}: the run may have been killed. The same command continues it.`
      : `The run goes on; this page follows it (${clock(run.at)}).`;
  }
  element.hidden = !words;
  element.classList.toggle("bad", !run && Boolean(gallery.missing));
  setText(element, words);
}

/** Reasons of failures, the most frequent first; each shows what it stopped. */
function failures() {
  const reasons = new Map();
  for (const item of items) {
    if (item.state !== "failed") continue;
    reasons.set(reasonOf(item), (reasons.get(reasonOf(item)) ?? 0) + 1);
  }
  const sorted = [...reasons].sort(([, a], [, b]) => b - a);
  const total = sorted.reduce((sum, [, count]) => sum + count, 0);
  byId("failures").hidden = total === 0;
  setText(byId("failures-title"), `Failed: ${grouped(total)}`);
  const shown = sorted.slice(0, MOST_REASONS);
  const key = JSON.stringify(shown);
  const place = byId("failures-list");
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(
    ...shown.map(([reason, count]) =>
      make("li", {},
        make("button", { type: "button", className: "reason", value: reason, dir: "auto",
          "aria-pressed": "false", onclick: () => filter.choose(reason) },
          make("b", {}, `${grouped(count)} × `), make("span", { dir: "auto" }, reason)))),
    ...(sorted.length > shown.length
      ? [make("li", { className: "hint" }, `and ${counted(sorted.length - shown.length, "other reason")}`)]
      : []),
  );
}

/** The links to the views that this folder has. */
function views() {
  const scored = scoreNames(items).length > 0;
  const names = [["pictures", "Pictures"], ...(gallery.timeline?.length ? [["workers", "Workers"]] : []),
    ...(scored ? [["scores", "Scores"]] : [])];
  const key = names.map(([name]) => name).join(" ");
  if (byId("views").dataset.key !== key) {
    byId("views").dataset.key = key;
    byId("views").replaceChildren(...names.map(([name, words]) =>
      make("li", {}, make("a", { href: `#${name}` }, words))));
    byId("views").hidden = names.length < 2;
  }
  showView();
}

function showView() {
  const asked = location.hash.slice(1);
  const there = [...byId("views").querySelectorAll("a")].map((a) => a.hash.slice(1));
  const next = there.includes(asked) ? asked : "pictures";
  const changed = next !== view;
  view = next;
  for (const name of ["pictures", "workers", "scores"]) byId(`view-${name}`).hidden = name !== view;
  for (const link of byId("views").querySelectorAll("a")) {
    if (link.hash.slice(1) === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!changed) return;
  if (view === "workers") timeline.show();
  if (view === "scores") showCharts(items, chooseCategory);
  if (view === "pictures") grid.soon();
}

function chooseCategory(category) {
  location.hash = "pictures";
  filter.chooseCategory(category);
}
