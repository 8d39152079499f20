"""The gallery of a large folder: `python -m benchmarks.gallery [RECORDS] [--keep FOLDER]`.

Makes a folder of RECORDS pictures by arithmetic, as eight workers would have left it, and says how
long its page takes to be written, and in Chromium to open, to scroll through, to search. Needs
requirements-dev.txt for the browser; without Chromium it stops before that.
"""

import argparse
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from apps.gallery.places import INDEX
from apps.gallery.states import States
from apps.gallery.writer import GalleryWriter
from core.store.ledger import FILE_NAME, Entry, Ledger

WORKERS = 8
SECONDS = 1.0  # a picture takes
FAILS_EACH = 997  # one of so many fails
START = 1_790_000_000.0  # Unix time of the first one
SIDE = 64  # pixels
COLOURS = 97  # pictures that differ; the others have one of theirs
THINGS = ("house", "boat", "lighthouse", "tree", "tower", "bridge", "barn", "windmill")
PLACES = ("by a lake", "on a hill", "at night", "in the snow", "under a red sky", "in the fog")
LORAS = ("ink", "night", "winter", "clay", None)


def entries(count: int) -> Iterator[Entry]:
    """The record of each task."""
    for i in range(count):
        thing, place, lora = THINGS[i % 8], PLACES[i // 8 % 6], LORAS[i // 48 % 5]
        failed = i % FAILS_EACH == FAILS_EACH - 1
        name = f"pictures/{i // 1000:03d}/{i:06d}.png"
        task: dict[str, Any] = {
            "kind": "GenerateTask",
            "prompt": f"a {thing} {place}, number {i}",
            "seed": 42 + i,
            "output_path": name,
            "metadata": {"tweet_text": f"Look, a {thing}!"},
        }
        if lora:
            task |= {"lora_path": f"loras/{lora}.safetensors", "lora_strength": 0.8}
        yield Entry(
            key=name,
            position=i,
            task_id=f"tweet {i}",
            output_path=name,
            fingerprint=f"{i:064x}",
            state="failed" if failed else "done",
            task=task,
            worker=f"gpu{i % WORKERS}",
            error="CUDA out of memory: tried 3 times." if failed else None,
            elapsed=SECONDS,
            size=0,
            sha256=f"{i % COLOURS:064x}",
            used={"model": "simulated", "width": SIDE, "height": SIDE, "num_inference_steps": 8},
        )


def make_folder(folder: Path, count: int) -> None:
    """An output folder with `count` tasks that have ended."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(COLOURS):
        colour = (number * 37 % 256, number * 91 % 256, number * 151 % 256)
        picture = Image.new("RGB", (SIDE, SIDE), colour)
        picture.paste(tuple(255 - c for c in colour), (16, 16, 48, 16 + number % 32 + 1))
        file = folder / f".colour-{number}.png"
        picture.save(file)
        files.append(file)
    ledger = Ledger.open(folder)
    try:
        made = list(entries(count))
        batch = ledger.begin_batch(made)
        ledger.lease_all((f"{e.position:032x}", e.key, 1, str(e.worker), "-") for e in made)
        cause = {"done": "done", "failed": "out_of_memory"}
        ledger.end_all((f"{e.position:032x}", cause[e.state], e, batch) for e in made)
    finally:
        ledger.close()
    _set_times(folder / FILE_NAME, made)
    for entry in made:
        if entry.state == "done":
            place = folder / str(entry.output_path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(files[entry.position % COLOURS])
    for file in files:
        file.unlink()
    states = States(folder)
    for worker in range(WORKERS):
        for state, before in (("starting", 14.0), ("loading the model", 12.0), ("ready", 1.0)):
            states.note_at(START - before + 0.3 * worker, f"gpu{worker}", state)


def _set_times(file: Path, made: Sequence[Entry]) -> None:
    """Give a ledger the times of a run; its own are all of this moment."""
    leases, tasks = [], []
    for entry in made:
        turn, worker = divmod(entry.position, WORKERS)
        begin = START + turn * SECONDS + 0.02 * worker
        leases.append((begin, begin + SECONDS, f"{entry.position:032x}"))
        tasks.append((begin + SECONDS, entry.key))
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany("UPDATE leases SET given = ?, ended = ? WHERE lease_id = ?", leases)
        database.executemany("UPDATE tasks SET updated = ? WHERE key = ?", tasks)


def measure_writing(folder: Path) -> None:
    cpu = time.process_time()
    GalleryWriter(folder).write()
    page = folder / INDEX
    print(
        f"written in {time.process_time() - cpu:.2f} s of CPU: {page.stat().st_size / 1e6:.1f} MB"
    )


def measure_page(folder: Path) -> None:
    from tests.server.browser import chromium

    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        begin = time.perf_counter()
        page.goto((folder / INDEX).absolute().as_uri())
        page.locator("#pictures img").first.wait_for()
        print(f"first pictures after {time.perf_counter() - begin:.2f} s")
        print(f"elements in the grid: {page.locator('#pictures li').count()}")
        print("scrolling:", json.dumps(page.evaluate(SCROLL)))
        print("searching:", json.dumps(page.evaluate(SEARCH)))


# Two hundred steps through the whole page; the time of each frame, in milliseconds.
SCROLL = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  const end = document.documentElement.scrollHeight;
  for (let step = 0; step <= 200; step += 1) {
    const begin = performance.now();
    scrollTo(0, end * step / 200);
    await frame(); await frame();
    times.push(performance.now() - begin);
  }
  scrollTo(0, 0);
  times.sort((a, b) => a - b);
  return { median_ms: times[100], worst_of_100_ms: times[198], worst_ms: times[200] };
}"""
SEARCH = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const input = document.getElementById("words");
  const times = [];
  for (const words of ["boat", "boat night", "number 99", "ink", ""]) {
    input.value = words;
    input.dispatchEvent(new Event("input"));
    await new Promise((done) => setTimeout(done, 200));
    const begin = performance.now();
    document.getElementById("choices").querySelector("select").dispatchEvent(new Event("change"));
    await frame(); await frame();
    times.push(performance.now() - begin);
  }
  return { each_ms: times };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("records", type=int, nargs="?", default=10_000)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make it here, and leave it")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = options.keep or Path(name) / "large"
        make_folder(folder, options.records)
        measure_writing(folder)
        if any(shutil.which(one) for one in ("chromium", "chromium-browser", "google-chrome")):
            measure_page(folder)


if __name__ == "__main__":
    main()
