// What every worker did when: a line for each, and a table of how its time was spent.

import { byId, make } from "./dom.js";
import { allItems, promptOf } from "./items.js";
import { clock, duration, grouped, shortened } from "./words.js";

const LINE = 34; // pixels of a worker's line
const BAR = 22;
const AXIS = 24;
const KINDS = [
  ["drawing", "Working"],
  ["failed", "Lost or failed attempts"],
  ["loading", "Starting, loading"],
  ["waiting", "Waiting"],
  ["dead", "Dead"],
];
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];

/** The view of the workers. */
export class Timeline {
  #open;
  #run = -1; // which run; -1 is the newest
  #drawn = null;
  #canvas = make("canvas", { role: "img" });
  #tip = make("p", { className: "hint tip", ariaHidden: "true" });

  /** @param open is called with the item whose part of a line was clicked. */
  constructor(open) {
    this.#open = open;
    new ResizeObserver(() => this.#draw()).observe(byId("timeline"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    byId("run").addEventListener("change", (event) => {
      this.#run = Number(event.target.value);
      this.#show();
    });
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.#canvas.addEventListener("pointerleave", () => this.#tip.replaceChildren("\u00a0"));
    this.#canvas.addEventListener("click", (event) => {
      const item = allItems()[this.#at(event)?.[3] ?? -1];
      if (item) this.#open(item);
    });
  }

  /** Show the runs that are known now. */
  show() {
    const runs = gallery.timeline ?? [];
    byId("runs").hidden = runs.length < 2;
    byId("run").replaceChildren(
      ...runs.map(({ start, end }, number) =>
        make("option", { value: number },
          `${new Date(start * 1000).toLocaleDateString()} ${clock(start)}, ${duration(end - start)}`),
      ).toReversed(),
    );
    if (this.#run >= 0) byId("run").value = String(this.#run);
    this.#show();
  }

  get #chosen() {
    const runs = gallery.timeline ?? [];
    return runs[this.#run] ?? runs.at(-1);
  }

  #show() {
    const run = this.#chosen;
    const place = byId("timeline");
    if (!run) {
      place.replaceChildren(make("p", { className: "hint" },
        "Nothing is known of workers: no record of attempts lies in this folder."));
      return;
    }
    this.#canvas.ariaLabel = `What ${run.lanes.length} workers did; the table below says it in figures.`;
    this.#tip.replaceChildren("\u00a0");
    const scrolls = make("div", { className: "lines" }, this.#canvas);
    place.replaceChildren(legend(), scrolls, this.#tip, figures(run));
    this.#draw();
  }

  #draw() {
    const run = this.#chosen;
    const width = this.#canvas.parentElement?.clientWidth;
    if (!run || !width) return;
    const names = Math.min(110, Math.max(44, 8 * Math.max(...run.lanes.map((l) => l.worker.length)) + 12));
    const height = LINE * run.lanes.length + AXIS;
    const scale = devicePixelRatio || 1;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    this.#canvas.style.height = `${height}px`;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const seconds = Math.max(0.001, run.end - run.start);
    const right = width - 8;
    const x = (at) => names + ((right - names) * at) / seconds;
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    axis(pen, run, seconds, x, height, right, colour);
    run.lanes.forEach(({ worker, segments }, row) => {
      const top = row * LINE + (LINE - BAR) / 2;
      pen.fillStyle = colour("--text");
      pen.textBaseline = "middle";
      pen.textAlign = "left";
      pen.fillText(shortened(worker, 13), 0, top + BAR / 2);
      const rare = ([doing]) => doing === "failed" || doing === "dead"; // seen among thousands
      const inOrder = [...segments.filter((s) => !rare(s)), ...segments.filter(rare)];
      for (const [doing, start, length] of inOrder) {
        pen.fillStyle = colour(`--${doing}`);
        // Whole pixels, or thousands of short ones would make a pattern of their own.
        const left = Math.round(x(start) * scale) / scale;
        const wide = Math.round(x(start + length) * scale) / scale - left;
        const gap = wide > 6 && doing !== "waiting" ? 1 : 0; // between one task and the next
        pen.fillRect(left, top, Math.max(doing === "failed" ? 2 : 0, wide - gap), BAR);
      }
    });
    this.#drawn = { run, names, right, seconds };
  }

  /** The part of a line under the pointer. */
  #at(event) {
    if (!this.#drawn) return undefined;
    const { run, names, right, seconds } = this.#drawn;
    const lane = run.lanes[Math.floor(event.offsetY / LINE)];
    const at = ((event.offsetX - names) / (right - names)) * seconds;
    const near = seconds / (right - names); // a pixel
    return lane?.segments.findLast(
      ([, start, length]) => start - near <= at && at <= start + Math.max(length, near),
    );
  }

  #point(event) {
    const found = this.#at(event);
    this.#canvas.style.cursor = found && found[3] >= 0 ? "pointer" : "default";
    if (!found) return;
    const [doing, start, length, place, outcome] = found;
    const item = allItems()[place];
    const what = KINDS.find(([name]) => name === doing)[1];
    const how = outcome && outcome !== "done" ? `, ${outcome.replaceAll("_", " ")}` : "";
    this.#tip.replaceChildren(
      make("b", {}, `${what}${how}`),
      `, ${duration(length)} from ${clock(this.#drawn.run.start + start)}`,
      item ? make("span", { dir: "auto" }, ` · ${shortened(promptOf(item), 120)}`) : "",
    );
  }
}

function axis(pen, run, seconds, x, height, right, colour) {
  const step = STEPS.find((one) => seconds / one <= (right > 700 ? 10 : 4)) ?? STEPS.at(-1);
  pen.textBaseline = "alphabetic";
  pen.textAlign = "center";
  for (let at = 0; at <= seconds; at += step) {
    pen.fillStyle = colour("--line");
    pen.fillRect(x(at), 0, 1, height - AXIS);
    pen.fillStyle = colour("--soft");
    if (x(at) < right - 14) pen.fillText(elapsed(at), x(at), height - 6);
  }
}

const elapsed = (seconds) => {
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
  return `${Math.floor(seconds / 3600)}:${two((seconds / 60) % 60)} h`;
};

const legend = () =>
  make("ul", { className: "legend" }, ...KINDS.map(([name, words]) =>
    make("li", {}, make("span", { className: `key ${name}`, ariaHidden: "true" }), words)));

function figures({ lanes, start, end }) {
  const all = Math.max(0.001, end - start);
  const columns = KINDS.map(([name]) => name);
  const rows = lanes.map(({ worker, segments }) => {
    const sums = Object.fromEntries(columns.map((name) => [name, 0]));
    let done = 0;
    for (const [doing, , length, , outcome] of segments) {
      sums[doing] += length;
      if (outcome === "done") done += 1;
    }
    return make("tr", {}, make("th", { scope: "row" }, worker), make("td", {}, grouped(done)),
      ...columns.map((name) =>
        make("td", {}, sums[name] >= 0.05 ? `${duration(sums[name])} (${Math.round((100 * sums[name]) / all)} %)` : "–")));
  });
  return make("div", { className: "scrolls", tabIndex: 0, role: "group", ariaLabel: "Figures of the workers" },
    make("table", { className: "figures" },
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Worker"),
        make("th", { scope: "col" }, "Done"),
        ...KINDS.map(([, words]) => make("th", { scope: "col" }, words)))),
      make("tbody", {}, ...rows)));
}
