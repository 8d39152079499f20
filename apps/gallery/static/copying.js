// Texts to be copied: a prompt, a task as JSON, a command that draws it again.

import { byId, make, setText } from "./dom.js";

const SHOWN = 2_000; // milliseconds for which a button says that it was done

/** A button that copies a text. */
export function copyButton(words, text) {
  const button = make("button", { type: "button" }, words);
  button.addEventListener("click", async () => {
    const done = await copied(text(), button);
    setText(button, done ? "Copied" : "Not copied");
    setText(byId("news"), done ? `${words}: copied.` : "The browser allows no copying.");
    setTimeout(() => setText(button, words), SHOWN);
  });
  return button;
}

async function copied(text, beside) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text, className: "unseen", ariaHidden: "true" });
    beside.after(area); // within a dialog nothing outside of it can be selected
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    beside.focus();
    return done;
  }
}

/** The task of an item as JSON; its seed may have more digits than a browser's numbers. */
export function taskText({ task = {}, seed }) {
  const text = JSON.stringify(task);
  if (!seed) return text;
  return `${text.slice(0, -1)}${text === "{}" ? "" : ","}"seed":${seed}}`;
}

/** A text as one word of a shell. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const COMMANDS = { generate: "generate_images_from_tweets.py", edit: "edit_images.py" };

/**
 * The command that draws or edits a picture again: from what its file says of itself, and where
 * there is no file, from the task.
 */
export function commandText(item) {
  const { folder } = gallery.run;
  const command = `python ${COMMANDS[item.kind] || COMMANDS.generate}`;
  if (item.file && folder) return `${command} --from-png ${quoted(`${folder}/${item.file}`)}`;
  const sources = (item.task?.source_images || []).map((path) =>
    path.startsWith("/") || !folder ? path : `${folder}/${path}`);
  const task = sources.length ? { ...item.task, source_images: sources } : item.task;
  const model = item.used?.model ? ` --model ${quoted(String(item.used.model))}` : "";
  const number = item.kind === "edit" ? "" : " 1";
  return (
    `printf %s ${quoted(`[${taskText({ ...item, task })}]`)} > again.json && ` +
    `${command} again.json${number}${model} --name again`
  );
}
