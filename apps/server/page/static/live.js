// What happens to jobs, as it happens: /v1/events. EventSource can send no key, so it is read here.

import { call } from "./api.js";

const SILENCE = 45_000; // milliseconds; the server sends a sign of life every 15 s
const FIRST_WAIT = 500;
const LONGEST_WAIT = 8_000;
const AWAY = 5_000; // milliseconds for which a tab in the background keeps its connection

/**
 * A tab that nobody looks at has no connection: browsers have six for a server, of all their tabs
 * together, and with those taken the next tab would load no script.
 *
 * Dispatches `open` with each new connection, after which everything is to be read again, then
 * `job`, `step`, `task` and `missed` as the server sends them, and `lost`.
 */
export class Live extends EventTarget {
  #wait = FIRST_WAIT;
  #abort = null;
  #leaving = 0;

  constructor() {
    super();
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#leaving);
      if (document.hidden) this.#leaving = setTimeout(() => this.again(), AWAY);
    });
  }

  /** Follow what happens, for as long as the page is there. */
  async run() {
    for (;;) {
      await looked();
      try {
        await this.#follow();
      } catch {
        // said below: what went wrong with a connection does not matter
      }
      if (document.hidden) continue;
      this.dispatchEvent(new Event("lost"));
      await new Promise((resolve) => setTimeout(resolve, this.#wait));
      this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
    }
  }

  /** Open the connection anew: it belongs to the key that it was opened with. */
  again() {
    this.#abort?.abort();
  }

  async #follow() {
    const abort = (this.#abort = new AbortController());
    let silent = 0;
    const listen = () => {
      clearTimeout(silent);
      silent = setTimeout(() => abort.abort(), SILENCE);
    };
    listen();
    try {
      const { body } = await call("/v1/events", { signal: abort.signal });
      this.#wait = FIRST_WAIT;
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        listen();
        const blocks = (text + value).replaceAll("\r\n", "\n").split("\n\n");
        text = blocks.pop();
        for (const block of blocks) this.#tell(block);
      }
    } finally {
      clearTimeout(silent);
    }
  }

  #tell(block) {
    let name = "message";
    const data = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    if (data.length) this.dispatchEvent(new CustomEvent(name, { detail: data.join("\n") }));
  }
}

/** Wait until somebody looks at the page. */
async function looked() {
  while (document.hidden) {
    await new Promise((resolve) =>
      document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}
