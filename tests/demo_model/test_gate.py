"""New models ship only if no figure of the model card is worse; otherwise nothing changes."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from demo_model.build import PARTS, Plan, stages
from demo_model.figures import Better, Figure, Measured, error_of_area, write_card
from demo_model.gate import Half, judge, ship, undo_half_an_exchange
from demo_model.styles import STYLES
from tests.conftest import run_script

OLD = {"checkpoint": 0.9, "loras": 0.5, "editor": 0.8, "judge": 0.7}


def _measure(at: Mapping[str, Path]) -> Measured:
    """One figure per model, which its folder holds."""
    values = {
        name: float((folder / "model.safetensors").read_text()) for name, folder in at.items()
    }
    figures = [Figure(name, value, "more") for name, value in values.items()]
    return Measured(" ".join(f"{n}={v:g}" for n, v in values.items()), tuple(figures))


HALVES = [
    Half(
        "generator", {n: Path(n) for n in ("checkpoint", "loras")}, _measure, ("<a>", "</a>"), True
    ),
    Half("editing", {n: Path(n) for n in ("editor", "judge")}, _measure, ("<b>", "</b>")),
]


def _models(folder: Path, values: Mapping[str, float]) -> Path:
    for name, value in values.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_text(str(value))
    return folder


def _state(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return _models(tmp_path / "shipped", OLD)


def test_models_that_are_nowhere_worse_take_the_others_place(shipped: Path, tmp_path: Path) -> None:
    better = {"checkpoint": 0.95, "loras": 0.5, "editor": 0.9}
    verdict = judge(_models(tmp_path / "work", better), shipped, HALVES)
    assert verdict.ships and verdict.worse == []
    assert verdict.measured["editing"].table == "editor=0.9 judge=0.7"
    ship(verdict, shipped)
    assert _state(shipped) == {
        f"{name}/model.safetensors": str(value) for name, value in {**OLD, **better}.items()
    }


def test_one_worse_figure_keeps_everything_as_it_is(shipped: Path, tmp_path: Path) -> None:
    before = _state(shipped)
    work = _models(tmp_path / "work", {"checkpoint": 0.99, "loras": 0.49, "editor": 0.9})
    verdict = judge(work, shipped, HALVES)
    assert verdict.worse == ["loras: 0.49 instead of 0.5"] and not verdict.ships
    assert _state(shipped) == before


def test_a_model_can_be_kept_as_it_is_shipped(shipped: Path, tmp_path: Path) -> None:
    work = _models(tmp_path / "work", {"editor": 0.9, "judge": 0.1})
    assert not judge(work, shipped, HALVES).ships
    verdict = judge(work, shipped, HALVES, keep=["judge"])
    assert verdict.ships and list(verdict.new) == ["editor"]


def test_a_checkpoint_without_its_loras_is_not_looked_at(shipped: Path, tmp_path: Path) -> None:
    verdict = judge(_models(tmp_path / "work", {"checkpoint": 1.0}), shipped, HALVES)
    assert not verdict.new and not verdict.ships


def test_the_same_weights_are_measured_once(shipped: Path, tmp_path: Path) -> None:
    count = []

    def counted(at: Mapping[str, Path]) -> Measured:
        count.append(at)
        return _measure(at)

    halves = [Half("editing", {"editor": Path("editor")}, counted, ("", ""))]
    work = _models(tmp_path / "work", {"editor": 0.9})
    first, second = (judge(work, shipped, halves) for _ in "ab")
    assert len(count) == 2 and first.measured == second.measured
    (work / "editor" / "model.safetensors").write_text("0.7")
    assert judge(work, shipped, halves).worse == ["editor: 0.7 instead of 0.8"]
    assert len(count) == 3


def test_too_many_megabytes_do_not_ship(shipped: Path, tmp_path: Path) -> None:
    work = _models(tmp_path / "work", {"editor": 0.9})
    with (work / "editor" / "more.safetensors").open("wb") as file:
        file.truncate(41_000_000)
    assert judge(work, shipped, HALVES).worse == ["all weights, MB: 41, and 40 is the limit"]


def test_an_interrupted_exchange_leaves_all_that_was_shipped(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _state(shipped)
    work = _models(tmp_path / "work", {"editor": 0.9, "judge": 0.8})
    verdict = judge(work, shipped, HALVES)
    rename = os.rename

    def refusing(source: Path, target: Path) -> None:
        if source.name == ".judge.new":
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refusing)
    with pytest.raises(OSError, match="disk full"):
        ship(verdict, shipped)
    assert _state(shipped) == before


def test_an_exchange_that_was_killed_is_undone(shipped: Path) -> None:
    before = _state(shipped)
    (shipped / "editor").rename(shipped / ".editor.old")  # between its two renames
    _models(shipped, {".judge.new": 0.9})
    undo_half_an_exchange(shipped, HALVES)
    assert _state(shipped) == before


def test_an_exchange_that_was_killed_at_its_end_is_finished(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = {"editor": 0.9, "judge": 0.8}
    verdict = judge(_models(tmp_path / "work", better), shipped, HALVES)
    remove = shutil.rmtree

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        if folder.name == ".judge.old" and folder.exists():
            raise KeyboardInterrupt
        remove(folder, ignore_errors)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        ship(verdict, shipped)
    undo_half_an_exchange(shipped, HALVES)
    now = {f"{name}/model.safetensors": str(value) for name, value in {**OLD, **better}.items()}
    assert _state(shipped) == now


@pytest.mark.parametrize(
    ("better", "ideal", "slack", "old", "new", "worse"),
    [
        ("more", 0, 0, 0.99, 0.989, True),
        ("more", 0, 0, 0.99, 0.99, False),
        ("more", 0, 0.02, 0.99, 0.975, False),
        ("less", 0, 0, 20.2, 20.3, True),
        ("less", 0, 0, 20.2, 12.0, False),
        ("near", 0.5, 0.05, 0.61, 0.45, False),
        ("near", 0.5, 0.05, 0.52, 0.6, True),
        ("below", 0.35, 0, 0.14, 0.33, False),
        ("below", 0.35, 0, 0.14, 0.36, True),
        ("more", 0, 0, 32.8, float("nan"), True),
    ],
)
def test_what_counts_as_worse(
    better: Better, ideal: float, slack: float, old: float, new: float, worse: bool
) -> None:
    before, now = (Figure("it", value, better, ideal, slack) for value in (old, new))
    assert now.worse_than(before) is worse


def test_an_area_over_few_pictures_is_less_certain() -> None:
    assert error_of_area(0.82, 243, 23) > 1.5 * error_of_area(0.82, 243, 243) > 0
    assert error_of_area(1.0, 100, 100) == 0


def test_the_card_gets_its_tables_and_keeps_its_words(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("one\n<a>\nold\n</a>\ntwo\n<b>\nold\n</b>\nthree\n")
    write_card(card, {("<b>", "</b>"): "new"})
    assert card.read_text() == "one\n<a>\nold\n</a>\ntwo\n<b>\nnew\n</b>\nthree\n"


@pytest.mark.parametrize("timed", [False, True])
def test_every_stage_has_what_it_needs_in_time(timed: bool, tmp_path: Path) -> None:
    found = {stage.name: stage for stage in stages(PARTS, timed)}
    assert {"transformer", "editor", "judge", *(f"lora_{style}" for style in STYLES)} <= set(found)
    plan = Plan(tmp_path, "cuda", 0, 1, 9, 300.0 if timed else None)
    for stage in found.values():
        taken = {o[1:] for o in map(str, stage.options) if o.startswith("@")}
        assert taken <= set(stage.needs) <= set(found)
        assert all(found[need].until < stage.until for need in stage.needs) or not timed
        line = plan.line(stage, began=1000.0)
        assert ("--until" in line) is timed and not any(word.startswith("@") for word in line)
        if timed:
            assert 1000 < float(line[line.index("--until") + 1]) <= 1300


def test_only_what_is_asked_for_is_trained() -> None:
    for timed in (False, True):
        assert {stage.part for stage in stages(["generator"], timed)} == {"generator"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would train")
def test_a_gpu_that_is_not_there_is_named_before_anything_begins(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    script = f"""
        import runpy, sys
        sys.argv[1:] = ["--device", "cuda", "--work", {str(work)!r}]
        runpy.run_module("demo_model.build", run_name="__main__", alter_sys=True)
        """
    done = run_script(script, tmp_path, "models")
    assert done.returncode == 1
    assert done.stderr == "--device cuda: torch sees no CUDA device here; take --device cpu.\n"
    assert list(work.iterdir()) == []
