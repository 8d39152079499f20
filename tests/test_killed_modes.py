"""A run that is killed goes on in every mode with what it had."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Project, wait_until, worker_processes
from tests.edit_world import Bench

SLOW = {"seconds_per_megapixel_step": 30.0, "score_seconds": 0.1}


@pytest.fixture
def bench(project: Project) -> Bench:
    """Three sessions of three turns, as ImgEdit publishes them."""
    bench = Bench(project)
    turns = {f"turn{n}": f"make it {n}" for n in (1, 2, 3)}
    rows = {key: {"id": f"{key}.jpg", **turns} for key in "123"}
    (bench.data / "content_memory.json").write_text(json.dumps(rows))
    for number, key in enumerate(rows):
        Image.new("RGB", (64, 48), (80 * number, 40, 40)).save(bench.data / f"{key}.jpg")
    return bench


def edits(bench: Bench) -> list[Path]:
    return sorted(file for place in bench.results.glob("edits*") for file in place.rglob("*.png"))


def verdicts(bench: Bench) -> list[Path]:
    return sorted(file for place in bench.results.glob("scores*") for file in place.rglob("*.json"))


@pytest.mark.parametrize(
    "mode", ["turns, and two edits of each pair", "edits that are there are only scored"]
)
def test_a_killed_run_resumes_in_every_mode(bench: Bench, mode: str) -> None:
    changes = {"edits_per_pair": 2, "simulated": SLOW}
    expected, arguments = 18, ["--layout", "imgedit"]
    if mode.startswith("edits"):
        made = bench.project.folder / "made"
        made.mkdir()
        for key in "123":
            for turn in (1, 2, 3):
                Image.new("RGB", (64, 48), "navy").save(made / f"{key}_turn{turn}.png")
        bench.results = bench.results.with_name("pairs-made")
        expected, arguments = 0, [*arguments, "--score-only", str(made)]
    scored = expected or 9
    run = bench.start(*arguments, **changes)
    ready = edits if expected else verdicts
    wait_until(lambda: len(ready(bench)) >= 5, "five files, some of them of second turns")
    workers = worker_processes(run.process.pid)
    run.process.kill()
    run.finish()
    wait_until(lambda: not any(w.is_running() for w in workers), "the workers' end")
    before = {file: file.stat().st_ino for file in [*edits(bench), *verdicts(bench)]}
    again = bench.run(*arguments, **changes)
    assert again.process.returncode == 0, again.errors
    assert bench.outcomes() == ["scored"] * 9
    assert (len(edits(bench)), len(verdicts(bench))) == (expected, scored)
    assert {file: file.stat().st_ino for file in before} == before
    assert bench.leftovers() == []
    written = bench.results.with_name(f"{bench.results.name}.imgedit") / bench.results.name
    assert len(list(written.glob("*.png"))) == 9
