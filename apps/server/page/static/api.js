// Requests to this server, with the API key where it wants one.

const PLACE = "api-key";
const PREVIEWS = 3; // of each picture, which is the most
let key = sessionStorage.getItem(PLACE) ?? "";
let askForKey = async () => "";
let tellOfKey = () => {};
let asking = null;

/** The server said no; the message is its own. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.param = error.param;
  }
}

/** The server did not answer. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

/** Whether requests need a key; then the browser cannot fetch pictures by itself. */
export const hasKey = () => key !== "";

/** @param ask is called with a reason when a key is needed, and resolves to one. */
export function whenKeyIsNeeded(ask) {
  askForKey = ask;
}

/** @param tell is called when another key has taken the place of one that ended. */
export function whenKeyChanges(tell) {
  tellOfKey = tell;
}

/**
 * Ask the server.
 * @returns {Promise<Response>} an answer that is no error.
 * @throws ApiError, Unreachable
 */
export async function call(path, options = {}) {
  for (;;) {
    const used = key;
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable();
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    if (used === key) await newKey(error, used);
  }
}

/** Ask the server for JSON, or send it some. */
export async function json(path, body, method = body === undefined ? "GET" : "POST", headers = {}) {
  const options = { method, headers };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  return parsed(await (await call(path, options)).text());
}

/**
 * A question whose answers come in the order in which it was asked: one that comes behind the answer
 * to a later one is old, and is undefined.
 */
export function inOrder(ask) {
  let asked = 0;
  let answered = 0;
  return async () => {
    const turn = (asked += 1);
    const answer = await ask();
    if (turn < answered) return undefined;
    answered = turn;
    return answer;
  };
}

/** Hand in tasks as a job, to be seen on its way; a second request with the same name is the first. */
export const submit = (tasks, name = randomName()) =>
  json("/v1/jobs", { tasks, previews: PREVIEWS }, "POST", { "Idempotency-Key": name });

/** A picture's path at this server, however its URL names the server. */
export const pathOf = (url) => (url === null ? null : new URL(url, location.href).pathname);

/** JSON as an object. Seeds have up to 64 bits, more than numbers here: long ones stay text. */
export const parsed = (text) => JSON.parse(text.replace(/(?<!\\)"seed":\s*(\d{16,})/g, '"seed":"$1"'));

/** A seed that nobody asked for, of 32 bits. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** A name that is used once. */
export const randomName = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

async function newKey(error, refused) {
  asking ??= askForKey(refused ? error.message : "").finally(() => (asking = null));
  key = await asking;
  sessionStorage.setItem(PLACE, key);
  if (refused && key !== refused) tellOfKey();
}

async function errorOf(response) {
  try {
    return new ApiError(response.status, (await response.json()).error);
  } catch {
    return new ApiError(response.status, { message: `The server answered ${response.status}.` });
  }
}
