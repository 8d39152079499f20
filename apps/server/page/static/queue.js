// Jobs that have not ended: what they are, how far they are, when they should end, and their early end.

import { inOrder, json } from "./api.js";
import { byId, make, reconcile, setText } from "./dom.js";
import { clock, counted, duration, grouped } from "./words.js";

const SHOWN = 8; // of each status
const SURE = 4_000; // milliseconds in which a second press cancels many tasks
const LONG = 10; // seconds of waiting that are worth a word
const SOON = 100; // seconds in which nobody looks at a clock
const NOUNS = { generate: "picture", edit: "edit", score: "score" };
const SOURCES = { batch: "from a batch", images: "from an images request", engine: "from a command" };

const openJobs = inOrder(() =>
  Promise.all(
    ["running", "queued"].map((status) => json(`/v1/jobs?status=${status}&limit=${SHOWN}`)),
  ));

/**
 * Read which jobs are open, and show them.
 * @returns those that run, whether there are more of them, and whether any is open; undefined where
 *   newer ones are shown.
 */
export async function refresh() {
  const lists = await openJobs();
  if (!lists) return undefined;
  const [running, queued] = lists;
  const jobs = [running, queued].flatMap((list) => list.data.toReversed());
  reconcile(byId("queue"), jobs, create, update);
  const none = byId("queue-none");
  none.hidden = jobs.length > 0 && !running.has_more && !queued.has_more;
  setText(none, jobs.length ? "… and more." : "Nothing waits.");
  return { running: running.data, more: running.has_more, any: jobs.length > 0 };
}

function create(job) {
  const button = make("button", { type: "button", className: "quiet" }, "Cancel");
  button.addEventListener("click", () => cancel(button, job.id));
  return make(
    "li",
    { className: "job" },
    make("div", { className: "line" }, make("span", { className: "title", dir: "auto" }), button),
    make("progress", {}),
    make("div", { className: "figure" }),
    make("div", { className: "figure forecast" }),
  );
}

function update(element, job) {
  const { total, succeeded, failed } = job.counts;
  const title = job.title || `Job ${job.id.slice(4, 12)}`;
  setText(element.querySelector(".title"), title);
  element.querySelector(".title").title = title;
  const bar = element.querySelector("progress");
  bar.max = total;
  bar.value = succeeded + failed;
  bar.setAttribute("aria-label", `Done of ${title}`);
  const [what, when] = element.querySelectorAll(".figure");
  setText(what, whatOf(job).join(" · "));
  setText(when, whenOf(job).join(" · "));
  const button = element.querySelector("button");
  button.dataset.left = total - succeeded - failed;
  button.dataset.title = title;
  if (!button.dataset.asked) button.setAttribute("aria-label", `Cancel ${title}`);
  if (job.cancelling) {
    button.disabled = true;
    setText(button, "Cancelling");
  }
}

/** What a job is, and how much of it is done. */
function whatOf(job) {
  const { total, succeeded, failed } = job.counts;
  const kinds = Object.entries(job.kinds ?? {});
  const [[kind, count] = ["", total]] = kinds;
  const noun = kinds.length === 1 ? (NOUNS[kind] ?? "task") : "task";
  const parts = [total > 1 ? `${grouped(succeeded)} of ${counted(total, noun)}` : counted(count, noun)];
  if (kinds.length > 1) parts.push(kinds.map(([one, n]) => counted(n, NOUNS[one] ?? one)).join(", "));
  if (failed) parts.push(`${grouped(failed)} failed`);
  if (SOURCES[job.source]) parts.push(SOURCES[job.source]);
  return parts;
}

/** How long it waits, and when it should begin and end. */
function whenOf(job) {
  const now = Date.now() / 1000;
  const parts = [];
  if (job.waiting_for) parts.push(job.waiting_for);
  else if (job.status === "queued") {
    const { queue_position: ahead } = job;
    parts.push(ahead ? `${counted(ahead, "task")} ahead` : "next");
    const waited = now - job.created_at;
    if (waited >= LONG) parts.push(`waits for ${duration(waited)}`);
    const starts = job.expected_start_at - now;
    if (job.expected_start_at && starts >= 1) parts.push(`starts in about ${duration(starts)}`);
  }
  const left = job.expected_end_at - now;
  if (job.expected_end_at && left >= 1) {
    const at = left < SOON ? "" : `, at ${clock(job.expected_end_at)}`;
    parts.push(`done in about ${duration(left)}${at}`);
  }
  return parts;
}

async function cancel(button, id) {
  const left = Number(button.dataset.left);
  if (left > 1 && !button.dataset.asked) {
    const { title } = button.dataset;
    button.dataset.asked = "yes";
    button.textContent = `Cancel ${counted(left, "task")}?`;
    button.setAttribute("aria-label", `${button.textContent} Press again to cancel ${title}`);
    setTimeout(() => {
      delete button.dataset.asked;
      button.setAttribute("aria-label", `Cancel ${title}`);
      if (!button.disabled) button.textContent = "Cancel";
    }, SURE);
    return;
  }
  button.disabled = true;
  button.textContent = "Cancelling";
  try {
    await json(`/v1/jobs/${id}`, undefined, "DELETE");
  } catch {
    button.disabled = false;
    button.textContent = "Cancel";
  }
}
