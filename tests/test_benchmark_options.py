"""Options of the benchmark that other commands have, too, mean the same here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.edit_benchmark.command import main
from apps.edit_benchmark.options import parse_arguments
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core import engine_choice
from core.devices.device import choose_devices
from core.devices.gpu import Gpu
from tests.conftest import PROJECT
from tests.edit_world import pair, settings
from tests.inline_backend import InlineBackend
from tests.published_sets import written

GPUS = [Gpu(i, f"GPU-{i}", "H", 80 * 1024**3) for i in range(4)]
# Of pictures and of their files alone: edits of a benchmark are what its data says.
OF_PICTURES = {
    "--instruction", "--with", "--mask", "--from-png", "--alternatives", "--seeds", "--grid",
    "--set", "--lora", "--format", "--quality", "--picture-name", "--shard",
}  # fmt: skip


class World:
    """Three pairs, one of which has no picture yet, and the command over them."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "pairs"
        self.data.mkdir()
        rows = [pair(0), pair(1, category="sea"), pair(2, category="sea")]
        (self.data / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        for number in (0, 2):
            self.picture(number)
        self.config = written(
            folder / "config.json",
            {**settings(), "gallery": False, "use_server": "never", "data": str(self.data)},
        )
        self.out = folder / "out"
        self.results = self.out / "pairs"

    def picture(self, number: int) -> None:
        Image.new("RGB", (64, 48), (number, 80, 40)).save(self.data / f"{number:03d}.png")

    def run(self, *options: str) -> int:
        line = ["--config", str(self.config), "--output-dir", str(self.out), *options]
        return main(line, backend=InlineBackend())

    def outcomes(self) -> dict[str, str]:
        lines = (self.results / "results.jsonl").read_text("utf-8").splitlines()
        return {r["pair_id"]: r["outcome"] for r in map(json.loads, lines)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def options_of(script: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    words = done.stdout.replace(",", " ").split()
    return {word for word in words if word.startswith("--") and word.strip("-")}


def test_every_option_of_editing_is_one_of_the_benchmark() -> None:
    assert options_of("edit_images.py") - options_of("run_edit_benchmark.py") == OF_PICTURES


@pytest.mark.parametrize("line", [["3"], ["--num-gpus", "3"], ["--limit", "2", "3", "--quiet"]])
def test_the_number_of_gpus_may_stand_anywhere(line: list[str]) -> None:
    assert parse_arguments(line).num_gpus == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["3", "--num-gpus", "2"], "give either NUM_GPUS or --num-gpus"),
        (["0"], "expected a number of 1 or more"),
        (["comapre"], "expected a number of GPUs, or compare or agreement"),
    ],
)
def test_a_number_of_gpus_that_cannot_be_meant_is_refused(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(line)
    assert said in capsys.readouterr().err


def test_a_number_of_gpus_and_their_ids_exclude_each_other(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run("2", "--gpu-ids", "0") == 2
    assert "Give either NUM_GPUS or --gpu-ids, not both." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "number", "labels"),
    [
        ({}, 2, ["gpu0", "gpu1"]),
        ({"device_ids": [3, 1]}, 1, ["gpu0"]),
        ({"device": "cpu", "cpu_workers": 3}, 2, ["cpu0", "cpu1"]),
        ({"parallel_mode": "model_parallel"}, 2, ["gpu0+1"]),
    ],
)
def test_so_many_gpus_are_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    number: int,
    labels: list[str],
) -> None:
    monkeypatch.setattr(
        engine_choice,
        "choose_devices",
        lambda number, ids, kind: choose_devices(number, ids, kind, environ={}, probe=lambda: GPUS),
    )
    values = load_benchmark_settings(settings(**changes))
    with EditBenchmark(values, tmp_path / "out", num_gpus=number) as run:
        assert [device.label for device in run.devices] == labels
        assert [device.label for device in run.judge_devices] == labels


def test_models_of_the_command_line_count_before_the_settings(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.loads(world.config.read_text("utf-8"))
    for role in ("editor", "judge"):
        text[role]["model"] = f"no/such-{role}"
    world.config.write_text(json.dumps(text))
    assert world.run("--model", "simulated", "--judge-model", "simulated", "--only", "000") == 0
    assert json.loads((world.results / "summary.json").read_text("utf-8"))["editor"] == "simulated"
    assert world.run("--dry-run", "--judge-model", "simulated") == 2
    assert "no/such-editor" in capsys.readouterr().out


def test_what_failed_is_tried_again_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run() == 1
    assert world.outcomes() == {"000": "scored", "001": "edit_failed", "002": "scored"}
    before = {f: f.stat().st_mtime_ns for f in world.results.rglob("*.png")}
    world.picture(1)
    assert world.run("--only-failed") == 0
    assert world.outcomes() == {"001": "scored"}
    assert "1 pair of 3 fit, and the table is of them" in capsys.readouterr().err
    assert world.run("--only-failed") == 0
    assert "Nothing is edited or scored: no pair fits." in capsys.readouterr().out
    assert world.run() == 0
    assert world.outcomes() == dict.fromkeys(("000", "001", "002"), "scored")
    assert {f: f.stat().st_mtime_ns for f in before} == before


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--only", "000", "sea/002"], {"000", "002"}),
        (["--where", "category=sea"], {"001", "002"}),
        (["--where", "outcome=scored", "--where", "category=sea"], {"002"}),
        (["--where", "outcome!=scored"], {"001"}),
        (["--where", "O>=0"], {"000", "002"}),
        (["--where", "status=failed"], {"001"}),
        (["--where", "picture=000.png"], {"000"}),
        (["--where", "instruction~night", "--only", "002"], {"002"}),
    ],
)
def test_pairs_are_chosen_by_their_record(
    world: World, options: list[str], wanted: set[str]
) -> None:
    assert world.run() == 1
    world.run(*options)
    assert set(world.outcomes()) == wanted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "0000"], "--only: nothing here is called '0000'; did you mean 000?"),
        (["--where", "categry=sea"], "'categry' is no field of a record; did you mean 'category'?"),
        (["--where", "O>high"], "O>high: > compares numbers"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(
    world: World, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run(*options) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_chooses_alike_and_touches_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run() == 1
    before = {f: f.stat().st_mtime_ns for f in world.results.rglob("*") if f.is_file()}
    world.picture(1)
    capsys.readouterr()
    assert world.run("--only-failed", "--dry-run") == 0
    assert "Plan for edits: 1 new.\nPlan for scores: 1 new." in capsys.readouterr().out
    assert {f: f.stat().st_mtime_ns for f in world.results.rglob("*") if f.is_file()} == before
