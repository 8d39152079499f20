"""The pictures of the pages in docs/: `python -m benchmarks.screenshots [FOLDER]`.

With FOLDER, the results of an edit benchmark (`make edit-demo`), the picture of its gallery alone.
Otherwise a daemon with the demo models draws some scenes, two edits and one task that cannot be,
and is shown while it works at more. Needs Chromium and requirements-dev.txt; a minute of two cores.
"""

import io
import json
import random
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from core.settings import PROJECT_DIR
from demo_model.captions import caption
from demo_model.scenes import sample_scene

DOCS = PROJECT_DIR / "docs"
LORAS = PROJECT_DIR / "demo_model" / "loras"
SIZE = {"width": 192, "height": 192, "num_inference_steps": 8}
PICTURES = 40
QUALITY = 80
PATIENCE = 120  # seconds
ADDRESS = re.compile(r"Serving on (http://\S+)")
EDITS = ("make it snow", "change the sky to night")


def scenes(count: int, seed: int, **fields: Any) -> list[dict[str, Any]]:
    """Tasks that draw scenes of the demo model's world, some of them with a LoRA."""
    chance = random.Random(seed)
    names = [file.stem for file in sorted(LORAS.glob("*.safetensors"))]
    tasks = []
    for number in range(count):
        task = {"prompt": caption(sample_scene(chance), chance), **SIZE, **fields}
        if number % 4 == 0:
            task["loras"] = [{"path": chance.choice(names), "strength": 0.9}]
        tasks.append(task)
    return tasks


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def run(url: str, tasks: list[dict[str, Any]]) -> str:
    """Have a job done; returns its id."""
    id = str(ask(f"{url}/v1/jobs", {"tasks": tasks})["id"])
    end = time.monotonic() + PATIENCE
    while ask(f"{url}/v1/jobs/{id}")["ended_at"] is None:
        if time.monotonic() > end:
            raise SystemExit(f"{id} did not end in {PATIENCE} s")
        time.sleep(0.2)
    return id


def take(
    browser: Browser, url: str, file: Path, width: int, height: int, scale: float, scheme: Any
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
    )
    page = context.new_page()
    page.goto(url)
    page.locator(".tile img").nth(8).wait_for()
    page.locator("#workers .figure", has_text="step").first.wait_for(state="attached")
    page.locator("[data-state=running] img").first.wait_for(timeout=1000 * PATIENCE)
    if width < 720:
        page.locator(".results").evaluate("one => one.scrollIntoView()")
    page.wait_for_timeout(1500)
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(file, "WEBP", quality=QUALITY, method=6)
    context.close()
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def take_gallery(folder: Path, chromium: str) -> None:
    """The gallery of an edit benchmark: its grid, and below it an edit with its slider."""
    shots = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 760}, color_scheme="light")
        page.goto((folder / "index.html").absolute().as_uri())
        page.locator(".tile img").nth(8).wait_for()
        page.wait_for_timeout(1000)
        shots.append(page.screenshot())
        page.locator(".tile").nth(3).click()
        page.wait_for_timeout(1000)
        shots.append(page.screenshot())
        browser.close()
    grid, viewer = (Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots)
    both = Image.new("RGB", (grid.width, grid.height + viewer.height + 12), "white")
    both.paste(grid, (0, 0))
    both.paste(viewer, (0, grid.height + 12))
    both.save(DOCS / "gallery.webp", "WEBP", quality=QUALITY, method=6)


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed")
    if sys.argv[1:]:
        take_gallery(Path(sys.argv[1]), chromium)
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        settings = folder / "settings.yaml"
        settings.write_text(yaml.safe_dump({"lora_dir": str(LORAS)}), "utf-8")
        log = folder / "log.txt"
        line = [
            "--config",
            str(settings),
            "--port",
            "0",
            "--cpu-workers",
            "2",
            "--drain-timeout",
            "0",
        ]
        with log.open("w") as stream:
            daemon = subprocess.Popen(
                [sys.executable, str(PROJECT_DIR / "serve.py"), *line, "--output-dir", name],
                stdin=subprocess.DEVNULL,
                stderr=stream,
            )
        try:
            while (found := ADDRESS.search(log.read_text("utf-8"))) is None:
                if daemon.poll() is not None:
                    raise SystemExit(log.read_text("utf-8"))
                time.sleep(0.1)
            _show(found[1], chromium)
        finally:
            daemon.terminate()
            daemon.wait()


def _show(url: str, chromium: str) -> None:
    drawn = run(url, scenes(PICTURES, 5))
    run(
        url,
        [
            {"kind": "edit", "instruction": words, "source_images": [f"{drawn}/{place}"]}
            for place, words in enumerate(EDITS)
        ],
    )
    run(url, [{"prompt": "a red house on the left at night", "width": 200}])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        more = scenes(60, 8, num_inference_steps=100)
        ask(f"{url}/v1/jobs", {"tasks": more, "previews": 3})
        ask(f"{url}/v1/jobs", {"tasks": more[:8]})
        take(browser, url, DOCS / "page.webp", 1440, 900, 1, "light")
        take(browser, url, DOCS / "page_phone.webp", 390, 844, 2, "dark")
        browser.close()


if __name__ == "__main__":
    main()
