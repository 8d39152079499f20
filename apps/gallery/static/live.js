// A run that goes on: its data lies beside the page in files that are replaced as pictures come.

const OFTEN = 4_000; // milliseconds between looks
const FOLDER = ".gallery";
const loaded = new Map(); // versions of files, by name

/** Load what lies beside the page, and keep looking while the run goes on. */
export async function follow() {
  await look();
}

async function look() {
  if (!document.hidden) {
    const there = await load("run.js", Date.now());
    if (there) await loadParts();
    else if (!gallery.run) gallery.missing = true;
    gallery.heard();
  }
  if (!gallery.run || gallery.run.running) setTimeout(look, OFTEN);
}

async function loadParts() {
  const { versions, timeline } = gallery.run;
  gallery.parts.length = versions.length;
  for (const [number, version] of versions.entries()) {
    await loadNew(`records-${String(number).padStart(4, "0")}.js`, version);
  }
  await loadNew("timeline.js", timeline);
}

async function loadNew(name, version) {
  if (loaded.get(name) === version) return;
  if (await load(name, version)) loaded.set(name, version);
}

/** Run a script beside the page: the only way in which a page opened as a file can read another. */
function load(name, version) {
  return new Promise((resolve) => {
    const script = document.createElement("script");
    script.addEventListener("load", () => resolve(true));
    script.addEventListener("error", () => resolve(false));
    script.src = `${FOLDER}/${name}?${version}`;
    document.head.append(script);
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => script.remove());
  });
}
