"""Folders as runs leave them, made in the test's own process, and pages of them in a browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from PIL import Image

from apps.edit_benchmark.command import main as benchmark
from apps.gallery.command import main as gallery
from apps.gallery.places import INDEX
from apps.tweets.command import main as tweets
from tests.conftest import write_safetensors
from tests.edit_world import settings
from tests.inline_backend import InlineBackend

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.server.browser import Watched

SCRIPT = "</script><script>window.hacked=1</script>"
IMAGE = '<img src=x onerror="window.hacked=2">'
BIDI = "\u202edlrow eht\u202c and בית אדום"
QUOTES = """it's "quoted" \\ `$(touch hacked)` \u2028 {mark} %s"""
SEED = 2**63 + 1  # more than numbers of a browser hold
PROMPTS = (SCRIPT, IMAGE, BIDI, QUOTES)
Open = Callable[..., "Page"]


def run_tweets(folder: Path, name: str, given: Any, *arguments: str) -> Path:
    """A run on one simulated device; returns its output folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file, config = folder / f"{name}.json", folder / "settings.yaml"
    file.write_text(json.dumps(given), "utf-8")
    config.write_text(yaml.safe_dump({"model": "simulated"}), "utf-8")
    line = [str(file), "1", "--config", str(config), "--output-dir", str(folder / "out")]
    assert tweets([*line, *arguments], backend=InlineBackend()) in (0, 1)
    return folder / "out" / name


def run_edits(folder: Path, name: str, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """A benchmark on one simulated device, of pictures of its own."""
    data = folder / name
    data.mkdir(parents=True)
    for number, row in enumerate(rows):
        picture = Image.new("RGB", (64, 48), (number * 20, 80, 40))
        picture.save(data / row["input_file_name"])
    (data / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    config = folder / f"{name}.yaml"
    values = settings(data=str(data), device="cpu", cpu_workers=1, **changes)
    config.write_text(yaml.safe_dump(values), "utf-8")
    line = ["--config", str(config), "--output-dir", str(folder / "results")]
    assert benchmark(line, backend=InlineBackend()) in (0, 1)
    return folder / "results" / name


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of hostile prompts, a large one, and failures of two reasons."""
    small = {"width": 32, "height": 32}
    given: list[dict[str, Any]] = [{"prompt": prompt, "seed": SEED, **small} for prompt in PROMPTS]
    given += [{"prompt": f"house number {number}", **small} for number in range(20)]
    wash = tmp_path_factory.mktemp("loras") / "wash"  # as PEFT leaves one
    wash.mkdir()
    write_safetensors(wash / "adapter_model.safetensors")
    given[-1]["lora_path"] = str(wash)
    given += [{"prompt": "a wide lake", "width": 1024, "height": 64}]
    given += [{"prompt": "!nan one", **small}, {"prompt": "!nan two", **small}]
    given += [{"prompt": "narrow", "width": 17}]
    return run_tweets(tmp_path_factory.mktemp("drawn"), "a_b", given)


@pytest.fixture(scope="session")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Edits of two categories with scores; one without, because of the judge's answer."""
    words = ["make it night", "add snow", "paint it red", f"write {SCRIPT}", "!unparsed it"]
    rows = [
        {
            "input_file_name": f"{number}.png",
            "instruction": instruction,
            "category": ("sky", "ground & <b>")[number % 2],
        }
        for number, instruction in enumerate(words)
    ]
    folder = run_edits(tmp_path_factory.mktemp("edited"), "pairs", rows)
    assert gallery([str(folder)]) == 0  # with copies of what was edited
    return folder


@pytest.fixture(scope="session")
def given(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of those edits as somebody else's, which were only scored."""
    theirs = tmp_path_factory.mktemp("theirs")
    shutil.copytree(edited / "edits", theirs / "edits", ignore=shutil.ignore_patterns("[34].png"))
    data = edited.parent.parent / "pairs"
    config = theirs / "settings.yaml"
    config.write_text(yaml.safe_dump(settings(data=str(data), device="cpu", cpu_workers=1)))
    line = ["--config", str(config), "--output-dir", str(theirs / "results")]
    score = ["--score-only", str(theirs / "edits"), "--only", "0", "1", "2"]
    assert benchmark([*line, *score], backend=InlineBackend()) == 0
    [folder] = (theirs / "results").iterdir()
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, or a skip. Its event loop runs in this thread, and may be in nobody's way."""
    from tests.server.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser: "Browser") -> Iterator["Watched"]:
    """Fails the test in which something was wrong in a page."""
    from tests.server.browser import Watched

    watched = Watched(browser)
    yield watched
    watched.close()
    assert watched.problems == []


@pytest.fixture
def open_page(watched: "Watched") -> Open:
    """Opens the page of a folder as a file; it may ask for nothing outside of the folder."""

    def opened(folder: Path, part: str = "", **options: Any) -> "Page":
        page = (folder / INDEX).as_uri() + part
        return watched.open(page, own=folder.as_uri(), **options)

    return opened
