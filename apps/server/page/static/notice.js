// The line above everything: the server is gone, or cannot begin a task now.

import { byId, setText } from "./dom.js";

const PATIENCE = 1_000; // milliseconds for which a lost connection is not worth a word
let gone = false;
let reason = "";
let timer = null;

/** The connection is lost. */
export function connectionLost() {
  timer ??= setTimeout(() => {
    gone = true;
    show();
  }, PATIENCE);
}

/** The connection is there again. */
export function connected() {
  clearTimeout(timer);
  timer = null;
  gone = false;
  show();
}

/** @param text why no task can begin now; empty if one can. */
export function notReady(text) {
  reason = text;
  show();
}

function show() {
  const notice = byId("notice");
  const text = gone
    ? "The server does not answer. What it accepted is kept. Trying again…"
    : reason;
  notice.classList.toggle("bad", gone);
  notice.hidden = text === "";
  setText(notice, text);
}
