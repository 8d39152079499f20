// Pictures that an edit reads: files of this device, or pictures that the server has.

import { call, parsed, pathOf } from "./api.js";
import { make } from "./dom.js";
import { forget, show } from "./pictures.js";
import { counted } from "./words.js";

const LIFETIME = 24 * 3600; // seconds; the job keeps a copy of its own

/** Pictures of one kind in the form, in their order. */
export class Sources {
  #items = []; // {file} or {reference, path}, and `element`
  #list;
  #upload;
  #most;
  #changed;

  /**
   * @param list shows them.
   * @param upload chooses files of this device.
   * @param most how many there can be; a single one gives way to the next.
   * @param changed is called when there are others.
   */
  constructor(list, upload, most, changed) {
    this.#list = list;
    this.#upload = upload;
    this.#most = most;
    this.#changed = changed;
    upload.addEventListener("change", () => {
      this.addFiles(upload.files);
      upload.value = "";
    });
  }

  /** Add files of this device; returns whether there was a picture among them. */
  addFiles(files) {
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    for (const file of pictures) this.#add({ file }, file.name);
    return pictures.length > 0;
  }

  /** Add a picture that the server has. */
  addOwn(reference, path) {
    this.#add({ reference, path }, reference);
  }

  clear() {
    for (const item of [...this.#items]) this.#remove(item);
  }

  get count() {
    return this.#items.length;
  }

  /**
   * References to all of them, as tasks name pictures; files are sent before.
   * @param tell is called with what is being done.
   */
  async references(tell) {
    const files = this.#items.filter((item) => !item.reference);
    for (const [place, item] of files.entries()) {
      tell(`Sending ${place + 1} of ${counted(files.length, "picture")}…`);
      item.reference = await send(item.file);
    }
    return this.#items.map((item) => item.reference);
  }

  /** Those that were sent are sent anew the next time: the server does not keep them for ever. */
  forgetSent() {
    for (const item of this.#items) if (item.file) delete item.reference;
  }

  #add(item, name) {
    if (this.#most === 1) this.clear();
    if (this.#items.length === this.#most) return;
    const image = make("img", { alt: name });
    if (item.file) image.src = URL.createObjectURL(item.file);
    else show(image, pathOf(item.path));
    const remove = make("button", { type: "button", "aria-label": `Remove ${name}` }, "×");
    item.element = make("li", {}, image, remove);
    remove.addEventListener("click", () => {
      this.#remove(item);
      this.#upload.focus();
    });
    this.#items.push(item);
    this.#list.append(item.element);
    this.#changed();
  }

  #remove(item) {
    this.#items.splice(this.#items.indexOf(item), 1);
    forget(item.element);
    item.element.remove();
    this.#changed();
  }
}

async function send(file) {
  const form = new FormData();
  form.append("purpose", "vision");
  form.append("expires_after[anchor]", "created_at");
  form.append("expires_after[seconds]", String(LIFETIME));
  form.append("file", file);
  return parsed(await (await call("/v1/files", { method: "POST", body: form })).text()).id;
}
