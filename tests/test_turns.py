"""Edits in turns start from the edit before; several edits of a pair, of which the best counts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.edit_benchmark.attempt import attempts_of
from apps.edit_benchmark.best_of import best_of, choice_summary
from apps.edit_benchmark.judges import read_judges
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pair_result import AttemptResult, PairResult
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.records import record_of
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from apps.edit_benchmark.turns import Turns
from apps.edit_benchmark.verdicts import read_verdict
from apps.gallery.reading import read_folder
from core.events import Event, TaskEnded
from core.intake.planning import Plan
from core.tasks import Result
from tests.edit_world import made_pair, settings
from tests.inline_backend import InlineBackend


def turn(number: int, follows: str = "", instruction: str = "make it night") -> Pair:
    return Pair(f"{number:02d}", "sky", instruction, follows=follows, index=number)


def chain(folder: Path, *instructions: str) -> list[Pair]:
    """Turns that each follow the one before; the first has a picture."""
    first = made_pair(folder / "first.png", 0, instructions[0])
    later = [turn(i, f"sky/{i - 1:02d}", text) for i, text in enumerate(instructions[1:], 1)]
    return [first, *later]


def run(
    folder: Path, pairs: Sequence[Pair], check: Any = None, **changes: Any
) -> tuple[Plan, list[PairResult]]:
    values = load_benchmark_settings(settings(device="cpu", **changes))
    with EditBenchmark(values, folder / "out", backend=InlineBackend()) as benchmark:
        plan = benchmark.prepare(PairSet("turns", list(pairs)))
        results = benchmark.run()
        if check is not None:
            check(benchmark, results)
    return plan, results


def test_a_turn_starts_from_the_edit_before_it_and_is_judged_against_it(tmp_path: Path) -> None:
    pairs = [*chain(tmp_path, "one", "two", "three"), made_pair(tmp_path / "x.png", 9)]
    pairs = [pairs[2], pairs[0], pairs[3], pairs[1]]  # in any order
    plan, results = run(tmp_path, pairs)
    assert plan.summary.counts == {"new": 4}
    third, first, _, second = results
    assert second.pair.source_images == (first.edit.output_path,)
    assert third.pair.source_images == (second.edit.output_path,)
    for before, after in ((first, second), (second, third)):
        verdict = json.loads(Path(str(after.score and after.score.output_path)).read_text())
        [source] = verdict["task"]["source_images"]
        assert str(tmp_path / "out" / source) == before.edit.output_path
    plan, again = run(tmp_path, pairs)
    assert plan.summary.counts == {"unchanged": 4} and not plan.tasks
    assert {r.edit.status for r in again} == {"skipped"}
    assert {r.score.status for r in again if r.score} == {"skipped"}


def test_a_changed_turn_changes_what_follows_it_and_nothing_else(tmp_path: Path) -> None:
    pairs = chain(tmp_path, "one", "two", "three")
    run(tmp_path, pairs)
    pairs[1] = replace(pairs[1], instruction="another")
    plan, results = run(tmp_path, pairs)
    assert [r.edit.status for r in results] == ["skipped", "done", "done"]
    assert [r.score.status for r in results if r.score] == ["skipped", "done", "done"]
    assert plan.summary.counts == {"unchanged": 1, "changed": 1, "new": 1}


@pytest.mark.parametrize("wrong", ["a failure", "a bad picture", "nothing to follow", "a circle"])
def test_without_an_edit_all_later_turns_fail_by_name(tmp_path: Path, wrong: str) -> None:
    texts = ["one", "!nan" if wrong == "a failure" else "two", "three", "four"]
    pairs = chain(tmp_path, *texts)
    fails = 1
    if wrong == "a bad picture":
        (tmp_path / "first.png").write_bytes(b"none")
        fails = 0
    elif wrong == "nothing to follow":
        pairs[1] = replace(pairs[1], follows="sky/gone")
    elif wrong == "a circle":
        pairs[1] = replace(pairs[1], follows="sky/03")
    _, results = run(tmp_path, pairs)
    states = ["done" if i < fails else "failed" for i in range(4)]
    assert [r.edit.status for r in results] == states
    last = str(results[3].edit.error)
    if wrong == "a circle":
        assert last == "follows: pairs follow each other in a circle."
    else:
        assert "sky/02, whose edit it starts from, has no edit: sky/01, whose" in last
        assert ("'sky/gone' is not among the pairs" in last) == (wrong == "nothing to follow")
    assert [r.score is not None for r in results] == [state == "done" for state in states]
    again, _ = run(tmp_path, pairs)
    assert again.summary.counts["unchanged"] == fails


@pytest.mark.parametrize("how", ["finish what runs", "at once"])
@pytest.mark.parametrize("last", [0, 1])
def test_an_interrupt_between_turns_leaves_the_rest_to_the_next_run(
    tmp_path: Path, how: str, last: int
) -> None:
    """The user stops the run in the moment in which a later turn is planned."""
    pairs = chain(tmp_path, "one", "two", "three", "four")
    values = load_benchmark_settings(settings(device="cpu"))
    with EditBenchmark(values, tmp_path / "out", backend=InlineBackend()) as benchmark:
        benchmark.prepare(PairSet("turns", pairs))

        def hear(event: Event) -> None:
            if isinstance(event, TaskEnded) and event.result.task_id == pairs[last].name:
                (benchmark.stop_leasing if how == "finish what runs" else benchmark.abandon)()

        benchmark.listener = hear
        results = benchmark.run()
    states = [result.edit.status for result in results]
    assert states == ["done"] * (last + 1) + ["interrupted"] * (3 - last)
    assert "whose edit it starts from, was not finished" in str(results[3].edit.error)
    _, again = run(tmp_path, pairs)
    assert [r.edit.status for r in again] == ["skipped"] * (last + 1) + ["done"] * (3 - last)
    assert all(r.score is not None and r.score.success for r in again)


def test_a_run_that_breaks_between_turns_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise KeyboardInterrupt

    pairs = chain(tmp_path, "one", "two")
    values = load_benchmark_settings(settings(device="cpu"))
    with (
        pytest.raises(KeyboardInterrupt),
        EditBenchmark(values, tmp_path / "out", backend=InlineBackend()) as benchmark,
    ):
        benchmark.prepare(PairSet("turns", pairs))
        monkeypatch.setattr(Turns, "release", breaks)
        benchmark.run()
    monkeypatch.undo()
    _, results = run(tmp_path, pairs)
    assert [r.edit.status for r in results] == ["skipped", "done"]


def test_a_plan_of_turns_touches_nothing(tmp_path: Path) -> None:
    pairs = chain(tmp_path, "one", "two", "three")
    values = load_benchmark_settings(settings(device="cpu"))

    def planned() -> list[str]:
        with EditBenchmark(values, tmp_path / "out", dry_run=True) as benchmark:
            return [task.standing for task in benchmark.plan(PairSet("turns", pairs)).tasks]

    assert planned() == ["new"] * 3 and not (tmp_path / "out").exists()
    run(tmp_path, pairs)
    assert planned() == ["unchanged"] * 3


def test_turns_of_several_edits_each_have_a_chain_of_their_own() -> None:
    pairs = [Pair("0", "a"), Pair("1", "a", follows="a/0")]
    turns = Turns(attempts_of(pairs, 2))
    assert turns.first == [0, 1] and turns.waiting == 2
    assert (turns.release(1), turns.release(0), turns.waiting) == ([3], [2], 0)
    assert attempts_of([replace(pairs[0], edited_image="x.png")], 5)[-1].number == 0


def test_of_several_edits_the_judges_best_counts_and_all_are_recorded(tmp_path: Path) -> None:
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(6)]
    pairs = [replace(pair, index=i, instruction=f"add {i}") for i, pair in enumerate(pairs)]
    pairs[5] = replace(pairs[5], instruction="!nan")
    _, alone = run(tmp_path, pairs)
    seen: list[Any] = []

    def check(benchmark: EditBenchmark, results: list[PairResult]) -> None:
        seen.extend(record_of(result, benchmark.root) for result in results)

    plan, results = run(tmp_path, pairs, check, edits_per_pair=3)
    assert plan.summary.counts["unchanged"] == 5 and len(plan.tasks) == 13, "the first are there"
    assert [r.attempts[0].edit.output_path for r in results] == [r.edit.output_path for r in alone]
    for record in seen[:5]:
        scores = [edit["scores"]["O"] for edit in record.edits]
        assert record.scores["O"] == max(scores) and record.chosen == scores.index(max(scores))
        assert record.edited_image == record.edits[record.chosen]["edited_image"]
        seeds = [edit["seed"] for edit in record.edits]
        assert seeds == [seeds[0], seeds[0] + 1_000_003, seeds[0] + 2_000_006]
    assert (
        seen[5].outcome == "edit_failed"
        and [e["outcome"] for e in seen[5].edits] == ["edit_failed"] * 3
    )
    assert len({record.chosen for record in seen[:5]}) > 1, "the first is not always the best"
    gain = choice_summary(seen)
    assert gain is not None and gain["edits_per_pair"] == 3 and gain["pairs_with_all_scores"] == 5
    assert gain["first"] <= gain["best"] and gain["all"] < gain["best"]
    assert Image.open(tmp_path / "out" / "edits-2" / "sky" / "00.png").size == (64, 64)
    shown = {item.name: item.choice for item in read_folder(tmp_path / "out").items}
    best = seen[0].chosen + 1
    names = {1: "sky/00", 2: "sky/00 #2", 3: "sky/00 #3"}
    assert [shown[names[n]] for n in names] == [
        f"{'' if n == best else 'not '}chosen, edit {n} of 3" for n in names
    ]
    assert shown["sky/05"] is None


def test_another_judge_stands_beside_by_its_verdicts_on_the_edits_that_count(
    tmp_path: Path,
) -> None:
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(6)]
    pairs = [replace(pair, index=i, instruction=f"add {i}") for i, pair in enumerate(pairs)]
    run(tmp_path, pairs, edits_per_pair=3)
    seen: list[Any] = []

    def check(benchmark: EditBenchmark, results: list[PairResult]) -> None:
        records = [record_of(result, benchmark.root) for result in results]
        seen.append((records, benchmark.judge_name))

    run(tmp_path, pairs, check, edits_per_pair=3, judge={"prompts": "gedit.yaml"})
    [(records, name)] = seen
    judged = read_judges(tmp_path / "out", records, name)
    [other] = judged.others
    assert any(record.chosen for record in records), "the first is not always the best"
    for record, beside in zip(records, other.records, strict=True):
        place = f"scores-{record.chosen + 1}" if record.chosen else "scores"
        file = tmp_path / "out" / place / other.judged_by.judge / "sky" / f"{record.pair_id}.json"
        assert beside.scores == read_verdict(file)["used"]["scores"]


@pytest.mark.parametrize(("name", "best"), [("O", 1), ("lpips_source", 0), ("dino_source", 1)])
def test_of_differences_the_least_is_the_best(name: str, best: int, tmp_path: Path) -> None:
    attempts = []
    for number, value in enumerate((0.2, 0.3)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"used": {"scores": {"other": 1 - value, name: value}}}))
        edit, score = (Result(number, "x", "done", str(file)) for _ in range(2))
        attempts.append(AttemptResult(number, edit, score))
    assert best_of(attempts).number == best
