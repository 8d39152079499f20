// Puts the page together: what is read when, and who hears of what.

import { parsed, whenKeyChanges, whenKeyIsNeeded } from "./api.js";
import { Compose } from "./compose.js";
import { Details } from "./details.js";
import { byId, gathered } from "./dom.js";
import { Failures } from "./failures.js";
import { Gallery } from "./gallery.js";
import { askForKey } from "./key_dialog.js";
import { Live } from "./live.js";
import { LoraHoldings } from "./lora_holdings.js";
import { resultCame } from "./news.js";
import { connected, connectionLost } from "./notice.js";
import { refresh as refreshQueue } from "./queue.js";
import { refresh as refreshWorkers } from "./workers.js";

const SOON = 150; // milliseconds in which news are gathered
const OFTEN = 1_000; // at least that often while they keep coming
const BUSY = 2_000; // milliseconds between looks at the workers, and at jobs that are open
const IDLE = 10_000;
const HURRY = 500; // while workers are about to load what was asked for

whenKeyIsNeeded(askForKey);
// On a phone eight workers would stand between the form and the pictures.
for (const part of ["workers-part", "holdings-part"]) {
  byId(part).open = !matchMedia("(max-width: 720px)").matches;
}
const compose = new Compose();
const change = (result) => compose.change(result);
const details = new Details({ change, edit: (result) => compose.edit(result) });
const gallery = new Gallery(
  (result, shownIn) => details.open(result, shownIn),
  (prompt) => compose.suggest(prompt),
);
const failures = new Failures(change);

// What cannot be read now is read when the server is there again; live.js says so.
const reading = (work) => () => work().catch(() => undefined);
const queueSoon = gathered(reading(lookAtQueue), SOON, OFTEN);
const failuresSoon = gathered(reading(() => failures.refresh()), SOON, OFTEN);
const workersSoon = gathered(lookAtWorkers, SOON, OFTEN);
const holdings = new LoraHoldings(workersSoon);
let nextLook = null;
let nextLookAtQueue = null;

async function lookAtQueue() {
  const asked = performance.now();
  const seen = await refreshQueue();
  if (!seen) return;
  const again = gallery.follow(seen.running, seen.more, asked) ?? (seen.any ? BUSY : undefined);
  clearTimeout(nextLookAtQueue);
  if (again) nextLookAtQueue = setTimeout(() => document.hidden || queueSoon(), again);
}

async function lookAtWorkers() {
  clearTimeout(nextLook);
  const seen = document.hidden ? undefined : await reading(refreshWorkers)();
  if (seen) await reading(() => holdings.look(seen.workers))();
  clearTimeout(nextLook);
  nextLook = setTimeout(lookAtWorkers, holdings.hurries ? HURRY : seen?.busy ? BUSY : IDLE);
}

function readEverything() {
  for (const part of [compose, gallery, failures, holdings]) reading(() => part.refresh())();
  queueSoon();
  workersSoon();
}

const live = new Live();
live.addEventListener("open", () => {
  connected();
  readEverything();
});
live.addEventListener("missed", readEverything);
live.addEventListener("lost", connectionLost);
live.addEventListener("step", (event) => {
  gallery.began(parsed(event.detail));
  workersSoon();
});
live.addEventListener("preview", (event) => gallery.preview(parsed(event.detail)));
live.addEventListener("job", (event) => {
  compose.hear(parsed(event.detail));
  queueSoon();
  workersSoon();
});
live.addEventListener("task", (event) => {
  const result = parsed(event.detail);
  if (result.status !== "cancelled") resultCame(result.success);
  gallery.add(result);
  if (!result.success) failuresSoon();
  queueSoon();
  workersSoon();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  queueSoon();
  workersSoon();
});
whenKeyChanges(() => live.again());
live.run();
