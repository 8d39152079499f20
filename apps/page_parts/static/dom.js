// Elements. Text goes into the page as text, never as HTML.

/** The element of the page with an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {Object} properties of it; `data-*`, `aria-*`, `role`, `for`, `list` and `dir` are attributes.
 * @param children elements and texts; null, undefined and false are left out.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (/^(data-|aria-)|^(role|for|list|dir)$/.test(name)) element.setAttribute(name, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => (child ?? false) !== false));
  return element;
}

/** Give an element a text, if it has another one: screen readers read what changes. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Bring a list up to date, and keep the elements of what stays: focus and scroll position do.
 * @param items with unique `id`.
 * @param create makes the element of a new one.
 * @param update changes an element to how its item is now.
 * @param gone is told of an element that is about to be removed.
 */
export function reconcile(list, items, create, update, gone = () => {}) {
  const known = new Map([...list.children].map((child) => [child.dataset.id, child]));
  const wanted = new Set(items.map((item) => item.id));
  for (const [id, element] of known) {
    if (wanted.has(id)) continue; // first, so that no element that stays is moved
    gone(element);
    element.remove();
  }
  let place = list.firstElementChild;
  for (const item of items) {
    let element = known.get(item.id);
    if (!element) {
      element = create(item);
      element.dataset.id = item.id;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else list.insertBefore(element, place);
  }
}

/** Calls `work` once things have been quiet for some milliseconds, or after `most` of them. */
export function gathered(work, quiet, most = quiet) {
  let timer = null;
  let due = 0;
  return () => {
    const now = performance.now();
    if (timer === null) due = now + most;
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = null;
      work();
    }, Math.max(0, Math.min(quiet, due - now)));
  };
}
