"""The shipped editor and judge do what they are there for; few samples, fixed seeds."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.devices.edit_models import DEMO_EDITOR, DEMO_JUDGE
from demo_model.demo_workers import do_edit, editor, judge, scores
from demo_model.edit_checker import edit_right
from demo_model.editor_parts import TRAINED, build_pipeline
from demo_model.edits import CATEGORIES, untrained
from demo_model.evaluate_editor import area_under_curve, do_edits
from demo_model.judged_edits import WORST, damage, sample_judged
from tests.conftest import BENCHMARK, Project

MODELS = [DEMO_EDITOR, DEMO_JUDGE]


@pytest.mark.slow
def test_the_editor_follows_instructions_that_it_was_never_trained_on(tmp_path: Path) -> None:
    rng = random.Random(8)
    edits = [untrained(rng, CATEGORIES[i % len(CATEGORIES)]) for i in range(10)]
    done = do_edits(editor(), edits, tmp_path)
    assert sum(edit_right(image, edit) for edit, image in done) >= 7  # .75 and more over 300
    assert not any(edit_right(edit.before(), edit) for edit in edits)


@pytest.mark.slow
def test_the_judge_ranks_right_edits_above_the_others(tmp_path: Path) -> None:
    rng = random.Random(9)
    family = judge()

    def of(deed: Any) -> list[float]:
        judged = [sample_judged(rng, deed, damaged=False) for _ in range(32)]
        return scores(family, [(j.before, j.after, j.edit.instruction) for j in judged], tmp_path)

    right = of("right")
    assert min(right) >= 0, "every answer is in form"
    for deed, least in (("unedited", 0.9), ("other", 0.85), ("too_much", 0.85)):
        assert area_under_curve(right, of(deed)) >= least, deed  # the card says it of 100


@pytest.mark.slow
def test_a_badly_drawn_edit_scores_less(tmp_path: Path) -> None:
    family, rng = judge(), random.Random(5)
    fine = [sample_judged(rng, "right", damaged=False) for _ in range(24)]
    bad = [replace(j, after=damage(j.after, WORST, rng)) for j in fine]
    by_quality = [
        scores(family, [(j.before, j.after, j.edit.instruction) for j in judged], tmp_path)
        for judged in (fine, bad)
    ]
    assert area_under_curve(*by_quality) >= 0.85


def test_an_editor_of_the_kind_that_is_trained_edits(tmp_path: Path) -> None:
    sizes = replace(TRAINED, dim=32, layers=1)
    build_pipeline(**vars(sizes)).save_pretrained(tmp_path / "editor")
    edit = untrained(random.Random(1), "colour")
    picture = do_edit(editor(tmp_path / "editor"), edit, 1, tmp_path)
    assert picture.size == (128, 128) and sizes.token == 8


@pytest.mark.parametrize("model", MODELS, ids=lambda folder: folder.name)
def test_configs_name_no_machine(model: Path) -> None:
    for file in model.rglob("*.json"):
        text = file.read_text("utf-8")
        for word in ("/work", "/home", "/tmp", "_attn_implementation", "outputs/"):
            assert word not in text, (file, word)


def test_the_weights_are_small() -> None:
    files = [file for model in MODELS for file in model.rglob("*.safetensors")]
    assert sum(file.stat().st_size for file in files) < 20_000_000


@pytest.mark.slow
def test_the_shipped_benchmark_runs_where_there_is_no_gpu(project: Project) -> None:
    """The shipped settings, on one pair of each category."""
    config = project.folder / "cpu.yaml"
    config.write_text("device: cpu\n")  # what the shipped file's `auto` is without a GPU
    out = project.folder / "out"
    line = ["--config", str(config), "--limit", "5", "--output-dir", str(out)]
    run = project.execute(BENCHMARK, line, "models")
    assert run.finish() == 0, run.errors
    lines = (out / "edit_pairs" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["outcome"] for r in records] == ["scored"] * 5
    assert any(line.startswith("overall   5") for line in run.output.splitlines()), run.output
