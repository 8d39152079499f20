// Pictures, loaded as they come near the window. Where a key is needed an <img> cannot send it: those
// are fetched here, and let go when they are far away.

import { call, hasKey } from "./api.js";

const NEAR = "800px";
const paths = new WeakMap();
const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) show(target);
      else release(target);
    }
  },
  { rootMargin: NEAR },
);

/** Have an <img> show a picture of this server while it is near the window. */
export function showWhenNear(image, path) {
  paths.set(image, path);
  observer.observe(image);
}

/** Have an <img> show a picture of this server now. */
export function showNow(image, path) {
  paths.set(image, path);
  show(image);
}

/** A URL for a link to a file of this server, to be saved. */
export async function saved(path) {
  return hasKey() ? URL.createObjectURL(await (await call(path)).blob()) : path;
}

/** Let go of the pictures below an element that is removed. */
export function forget(element) {
  for (const image of element.querySelectorAll("img")) {
    observer.unobserve(image);
    release(image);
  }
}

async function show(image) {
  const path = paths.get(image);
  if (!path || image.dataset.shown === path) return;
  image.dataset.shown = path;
  image.onerror = () => image.classList.add("gone");
  image.onload = () => image.classList.remove("gone");
  if (!hasKey()) {
    image.src = path;
    return;
  }
  try {
    const blob = await (await call(path)).blob();
    if (image.dataset.shown === path) image.src = URL.createObjectURL(blob);
  } catch {
    image.classList.add("gone");
    delete image.dataset.shown;
  }
}

function release(image) {
  if (!image.src.startsWith("blob:")) return;
  URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  delete image.dataset.shown;
}
