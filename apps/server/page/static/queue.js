// Jobs that have not ended: how far they are, when they should end, and their early end.

import { json } from "./api.js";
import { byId, make, reconcile, setText } from "./dom.js";
import { counted, duration, grouped, shortened } from "./words.js";

const SHOWN = 8; // of each status
const SURE = 4_000; // milliseconds in which a second press cancels many tasks
const titles = new Map();

/** Remember what a job of this page is about: jobs themselves do not say. */
export function nameJob(id, prompt) {
  titles.set(id, prompt);
}

/** Read which jobs are open, and show them. */
export async function refresh() {
  const lists = await Promise.all(
    ["running", "queued"].map((status) => json(`/v1/jobs?status=${status}&limit=${SHOWN}`)),
  );
  const jobs = lists.flatMap((list) => list.data.toReversed());
  reconcile(byId("queue"), jobs, create, update);
  const none = byId("queue-none");
  none.hidden = jobs.length > 0 && !lists.some((list) => list.has_more);
  setText(none, jobs.length ? "… and more." : "Nothing waits.");
}

function create(job) {
  const button = make("button", { type: "button", className: "quiet" }, "Cancel");
  button.addEventListener("click", () => cancel(button, job.id));
  return make(
    "li",
    { className: "job" },
    make("div", { className: "line" }, make("span", { className: "title" }), button),
    make("progress", {}),
    make("div", { className: "figure" }),
  );
}

function update(element, job) {
  const { total, succeeded, failed } = job.counts;
  const title = titles.get(job.id) ?? `Job ${job.id.slice(4, 12)}`;
  setText(element.querySelector(".title"), shortened(title, 60));
  element.querySelector(".title").title = title;
  const bar = element.querySelector("progress");
  bar.max = total;
  bar.value = succeeded + failed;
  bar.setAttribute("aria-label", `Done of ${title}`);
  setText(element.querySelector(".figure"), stateOf(job).join(" · "));
  const button = element.querySelector("button");
  button.dataset.left = total - succeeded - failed;
  button.setAttribute("aria-label", `Cancel ${title}`);
  if (job.cancelling) {
    button.disabled = true;
    setText(button, "Cancelling");
  }
}

function stateOf(job) {
  const { total, succeeded, failed } = job.counts;
  const parts = [`${grouped(succeeded)} of ${grouped(total)}`];
  if (failed) parts.push(`${grouped(failed)} failed`);
  if (job.waiting_for) parts.push(job.waiting_for);
  else if (job.status === "queued") parts.push(ahead(job.queue_position));
  const left = job.expected_end_at - Date.now() / 1000;
  if (job.expected_end_at && left >= 1) parts.push(`about ${duration(left)} left`);
  return parts;
}

const ahead = (position) => (position ? `${counted(position, "task")} ahead` : "next");

async function cancel(button, id) {
  const left = Number(button.dataset.left);
  if (left > 1 && !button.dataset.asked) {
    button.dataset.asked = "yes";
    button.textContent = `Cancel ${counted(left, "task")}?`;
    setTimeout(() => {
      delete button.dataset.asked;
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
