// Asks for the API key.

import { byId, setText } from "./dom.js";

/** @param refused why the last key was none; empty if there was none. */
export function askForKey(refused) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  setText(byId("key-problem"), refused);
  input.value = "";
  return new Promise((resolve) => {
    let given = false;
    dialog.onclose = () => given || ask(); // there is nothing to see without one
    byId("key-form").onsubmit = () => {
      given = true;
      resolve(input.value.trim());
    };
    ask();

    function ask() {
      if (!dialog.open) dialog.showModal();
      input.focus();
    }
  });
}
