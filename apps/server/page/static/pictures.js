// Pictures of this server. Where a key is needed an <img> cannot send it: those are fetched here, and
// let go with their element. What is still on its way then is given up.

import { call, hasKey } from "./api.js";

// Milliseconds after which one that could not be had is asked for again: a server may be starting.
const AGAIN = [1_000, 5_000, 20_000];
const paths = new WeakMap(); // of pictures that are shown, or on their way
const fetches = new WeakMap();

/** Have an <img> show a picture of this server; it keeps the one it has until the new one is there. */
export async function show(image, path) {
  if (paths.get(image) === path) return;
  paths.set(image, path);
  await load(image, path, 0);
}

async function load(image, path, tries) {
  const failed = () => {
    if (paths.get(image) !== path) return;
    image.classList.add("gone");
    if (tries === AGAIN.length) return;
    setTimeout(() => paths.get(image) === path && load(image, path, tries + 1), AGAIN[tries]);
  };
  image.onerror = failed;
  image.onload = () => image.classList.remove("gone");
  if (!hasKey()) {
    image.src = path;
    return;
  }
  fetches.get(image)?.abort();
  const abort = new AbortController();
  fetches.set(image, abort);
  try {
    const blob = await (await call(path, { signal: abort.signal })).blob();
    if (paths.get(image) !== path) return;
    letGo(image.src);
    image.src = URL.createObjectURL(blob);
  } catch {
    failed();
  }
}

/** The path of a picture that a task read, by the name that its result gives it. */
export function pathOfSource(reference) {
  const [job, position, , place] = reference.split("/");
  return `/v1/jobs/${job}/results/${position}/sources/${place}`;
}

/** A URL for a link to a file of this server, to be saved. */
export async function saved(path) {
  return hasKey() ? URL.createObjectURL(await (await call(path)).blob()) : path;
}

/** Let go of the pictures below an element that is removed. */
export function forget(element) {
  for (const image of element.querySelectorAll("img")) {
    paths.delete(image);
    fetches.get(image)?.abort();
    letGo(image.src);
    if (!image.complete) image.removeAttribute("src");
  }
}

function letGo(url) {
  if (url.startsWith("blob:")) URL.revokeObjectURL(url);
}
