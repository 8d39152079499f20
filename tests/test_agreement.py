"""How far a judge can be trusted: with people, with other judges, and with itself."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.edit_benchmark.agreement.accuracy import (
    ALL,
    MEAN,
    accuracies,
    are_right,
    calibrated_epsilon,
)
from apps.edit_benchmark.agreement.orders import repeats, same_orders
from apps.edit_benchmark.agreement.verdicts import JudgeRun, Scored
from apps.edit_benchmark.command import main as benchmark
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.preferences import Comparison, comparisons_of
from apps.edit_benchmark.summary import JudgedBy
from core.errors import InputError
from tests import published_sets as sets
from tests.conftest import PROJECT
from tests.inline_backend import InlineBackend


def candidate(name: str, category: str = "add", group: str = "g", **told: Any) -> Pair:
    return Pair(name, category, "add a cat", metadata={"group": group, **told})


def test_a_preference_out_of_form_is_one_clear_error() -> None:
    for wrong in ({"with": "add/b", "preferred": "mine"}, "add/b", {"preferred": "this"}):
        with pytest.raises(InputError, match="pair add/a: comparisons: expected a list of"):
            comparisons_of([candidate("a", comparisons=[wrong])])


# -- pair accuracy -------------------------------------------------------------


def editscores_own(scores: Mapping[str, float], compared: Sequence[Comparison]) -> float:
    """As EditScore's calculate_statistics has it: strictly higher, mean over the task types."""
    tasks = sorted({c.category for c in compared})
    by_task = []
    for task in tasks:
        mine = [c for c in compared if c.category == task]
        by_task.append(sum(scores[c.first] > scores[c.second] for c in mine) / len(mine))
    return sum(by_task) / len(by_task)


def tiger_labs_own(human: Sequence[int], differences: Sequence[float]) -> float:
    """Accuracy with ties as TIGER-Lab's eval_bench has it: every threshold is tried."""
    best = -1.0
    for epsilon in [0.0, *sorted({abs(d) for d in differences})]:
        right = 0
        for h, m in zip(human, differences, strict=True):
            if h == 0:
                right += abs(m) <= epsilon
            else:
                right += abs(m) > epsilon and h * m > 0
        best = max(best, right / len(human))
    return best


MARKS = st.integers(0, 10)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("xyz"), MARKS, MARKS), min_size=1, max_size=30))
def test_without_ties_accuracy_is_editscores_own(rows: list[tuple[str, int, int]]) -> None:
    compared: list[Comparison] = []
    scores: dict[str, float] = {}
    for i, (task, a, b) in enumerate(rows):
        compared.append(Comparison(f"{i}a", f"{i}b", 1, task, group=f"{i}"))
        scores |= {f"{i}a": float(a), f"{i}b": float(b)}
    table = {row.task: row for row in accuracies(compared, scores, 100)}
    own, whole = table[MEAN].accuracy, table[ALL].accuracy
    assert own is not None and own.mean == pytest.approx(editscores_own(scores, compared))
    won = sum(a > b for _, a, b in rows)
    assert whole is not None and whole.mean == pytest.approx(won / len(rows))
    assert table[ALL].epsilon is None and table[ALL].groups_right == won


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(-8, 8)), min_size=1, max_size=30))
def test_with_ties_accuracy_is_tiger_labs_own(rows: list[tuple[bool, int]]) -> None:
    ties, differences = [t for t, _ in rows], [d / 2 for _, d in rows]
    epsilon = calibrated_epsilon(ties, differences)
    accuracy = sum(are_right(ties, differences, epsilon)) / len(rows)
    assert accuracy == pytest.approx(tiger_labs_own([not t for t in ties], differences))


def tiger_labs_own_orders(
    human: Sequence[int], differences: Sequence[float], epsilon: float
) -> int:
    """Its strict accuracy of groups of 2: epsilon for ties, else the order of the two scores."""
    return sum(
        abs(d) <= epsilon if h == 0 else (d > 0) == (h > 0)
        for h, d in zip(human, differences, strict=True)
    )


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.floats(0.125, 9), st.booleans())))
def test_orders_of_groups_of_two_are_tiger_labs_own(rows: list[tuple[int, float, bool]]) -> None:
    """One that is ahead by less than a tie's epsilon is in the right order all the same."""
    human = [h for h, _, _ in rows]
    differences = [size if up else -size for _, size, up in rows]
    compared = [Comparison(f"{i}a", f"{i}b", h, "2pair", group=f"{i}") for i, h in enumerate(human)]
    # Beside them a part without ties, whose groups are right whatever epsilon the others have.
    compared.append(Comparison("xa", "xb", 1, "3pair", group="x"))
    scores = {"xa": 1e-9, "xb": 0.0}
    for i, difference in enumerate(differences):
        scores |= {f"{i}a": difference, f"{i}b": 0.0}
    table = {row.task: row for row in accuracies(compared, scores, 10)}
    expected = 0
    if rows:
        epsilon = table["2pair"].epsilon or 0.0
        expected = tiger_labs_own_orders(human, differences, epsilon)
        assert table["2pair"].groups_right == expected
    assert table[ALL].groups_right == expected + 1


def test_a_group_is_right_if_every_comparison_of_it_is() -> None:
    pairs = [candidate(f"{g}{i}", group=g, rank=i) for g in "xy" for i in range(3)]
    scores = {f"add/x{i}": 9.0 - i for i in range(3)} | {
        f"add/y{i}": float(i != 2) for i in range(3)
    }
    task, mean, whole = accuracies(comparisons_of(pairs), scores, 500)
    assert (task.comparisons, task.groups, task.groups_right) == (6, 2, 1)
    assert task.accuracy is not None and task.accuracy.mean == pytest.approx(5 / 6)
    # Drawing whole groups, one of three comparisons or all of them are right in both.
    assert (task.accuracy.low, task.accuracy.high) == pytest.approx((2 / 3, 1.0))
    assert mean.accuracy == task.accuracy == whole.accuracy


def test_candidates_without_a_score_are_counted_and_left_out() -> None:
    pairs = [candidate("a", rank=1), candidate("b", rank=2), candidate("c", rank=3)]
    row = accuracies(comparisons_of(pairs), {"add/a": 2.0, "add/b": 1.0}, 100)[0]
    assert (row.comparisons, row.unscored) == (1, 2)
    assert row.accuracy is not None and (row.accuracy.mean, row.accuracy.low) == (1.0, None)
    none = accuracies(comparisons_of(pairs), {}, 100)[0]
    assert (none.accuracy, none.comparisons, none.unscored) == (None, 0, 3)


# -- judges with each other, and with themselves -------------------------------


def judge_run(
    scores: Mapping[str, Mapping[str, float]], judge: str = "vlm", edits: str = "edit", **told: Any
) -> JudgeRun:
    verdicts = {
        name: Scored(dict(values), {}, frozenset({"source", f"{edits} {name}"}))
        for name, values in scores.items()
    }
    return JudgeRun("out", JudgedBy(judge, "model", "hash", {}, **{"seed": 1, **told}), verdicts)


def test_judges_are_correlated_by_every_score_that_both_have() -> None:
    a = judge_run({f"{i}": {"SC": float(i), "O": float(i)} for i in range(4)})
    b = judge_run({f"{i}": {"SC": 1.0 + i, "O": 3.0 - i} for i in range(5)}, "vlm_logits")
    c = judge_run({f"{i}": {"image_image": i / 9} for i in range(5)}, "clip")
    orders = same_orders([a, b, c])
    assert [(o.first, o.second, o.score, o.correlation.n) for o in orders] == [
        (0, 1, "SC", 4), (0, 1, "O", 4), (0, 2, "O, image_image", 4), (1, 2, "O, image_image", 5),
    ]  # fmt: skip
    assert orders[0].correlation.kendall == 1 and orders[1].correlation.kendall == -1
    assert (orders[0].equal, orders[0].distance) == (0.0, 1.0)
    assert repeats([a, b, c]) == []


def test_a_judge_that_says_something_else_each_time_is_seen() -> None:
    first = judge_run({"x": {"O": 4.0}, "y": {"O": 6.0}, "z": {"O": 9.0}}, seed=1)
    again = judge_run({"x": {"O": 4.0}, "y": {"O": 8.0}}, seed=2)
    once_more = judge_run({"x": {"O": 4.0}, "y": {"O": 7.0}}, batch_size=1)
    [found] = repeats([first, again, once_more])
    assert (found.judges, found.edits, found.equal, found.largest) == ([0, 1, 2], 2, 0.5, 2.0)
    assert found.std == pytest.approx((0 + (2 / 3) ** 0.5) / 2)  # of x none; of 6, 8 and 7


def test_scores_of_other_edits_are_no_repeat() -> None:
    first = judge_run({"x": {"O": 4.0}})
    assert repeats([first, judge_run({"x": {"O": 5.0}}, edits="another")]) == []
    assert same_orders([first, judge_run({"x": {"O": 5.0}}, "clip", "another")]) == []


# -- the command ---------------------------------------------------------------


def write_verdict(
    folder: Path, judge: str, pair: str, parts: tuple[float, float] | None, edit: str
) -> None:
    file = folder / "scores" / judge / f"{pair}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    scores, calls = None, []
    if parts is not None:
        scores = {"SC": min(parts), "PQ": 5.0, "O": (min(parts) * 5.0) ** 0.5}
        calls = [{"name": "SC", "parts": dict(zip(("success", "over"), parts, strict=True))}]
    used = {"scores": scores, "model": "tiny", "prompt_hash": "h", "libraries": "torch 2"}
    text = json.dumps({"used": used, "calls": calls, "files": ["source", edit]})
    file.write_text(text, "utf-8")


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Two judges on three groups of candidates, and the data that says what people preferred."""
    data, rows = tmp_path / "bench", []
    data.mkdir()
    for group in range(3):
        for place, letter in enumerate("abc"):
            name = f"{group}{letter}"
            rows.append({
                "input_file_name": "source.png", "instruction": "add a cat", "pair_id": name,
                "category": ["add", "style"][group // 2], "group": f"{group}", "rank": place + 1,
            })  # fmt: skip
            pair, folder = f"{rows[-1]['category']}/{name}", tmp_path / "out"
            good = (6.0 - place, 7.0 + place)
            write_verdict(folder, "vlm-good-tiny", pair, good, f"edit {name}")
            bad = None if name == "0c" else (1.0 + place, 5.0)
            write_verdict(folder, "vlm-bad-tiny", pair, bad, f"edit {name}")
    (data / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    from PIL import Image

    Image.new("RGB", (8, 8)).save(data / "source.png")
    return tmp_path


def test_the_command_tells_how_judges_agree_with_people_and_each_other(
    judged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    report = judged / "report.json"
    line = ["agreement", "--data", str(judged / "bench"), str(judged / "out")]
    assert benchmark([*line, "--samples", "200", "--report", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "A: vlm-bad-tiny (tiny, prompts h), torch 2: 8 edits" in shown
    table = shown.partition("pair accuracy, overall:\n")[2].splitlines()
    rows = {line.split("  ")[0]: line.split()[-12:] for line in table[1:5]}
    assert list(rows) == ["add", "style", "mean of tasks", "all comparisons"]
    found = json.loads(report.read_text("utf-8"))
    bad, good = found["judges"]
    assert [row["accuracy"]["mean"] for row in good["accuracy"]["overall"]] == [1.0] * 4
    assert [row["accuracy"]["mean"] for row in bad["accuracy"]["overall"]] == [0.0] * 4
    assert bad["accuracy"]["overall"][0]["unscored"] == 2
    order = {o["score"]: o["correlation"] for o in found["orders"]}
    assert order["O"]["n"] == 8 and order["O"]["kendall"] < 0
    assert "judges with each other" in shown and "no score: comparisons" in shown


def test_a_judge_whose_run_has_no_verdict_yet_is_told_by_its_name(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (judged / "out" / "scores" / "openai-late" / "add").mkdir(parents=True)
    line = ["agreement", "--data", str(judged / "bench"), str(judged / "out")]
    assert benchmark([*line, "--samples", "100"]) == 0
    assert f"A: openai-late: 0 edits, {judged / 'out'}" in capsys.readouterr().out


def test_candidates_are_compared_by_a_part_of_a_score(judged: Path) -> None:
    report = judged / "report.json"
    line = ["agreement", "--data", str(judged / "bench"), str(judged / "out")]
    line += ["--judge", "vlm-good-tiny", "--samples", "100", "--report", str(report)]
    assert benchmark([*line, "--score", "overall=SC.over"]) == 0
    [good] = json.loads(report.read_text("utf-8"))["judges"]
    assert good["accuracy"]["overall"][-1]["accuracy"]["mean"] == 0.0


def test_one_judge_in_two_folders_is_a_repeat(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = judged / "again"
    for file in (judged / "out").rglob("*.json"):
        place = again / file.relative_to(judged / "out")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    write_verdict(again, "vlm-good-tiny", "add/0a", (5.0, 5.0), "edit 0a")
    line = ["agreement", "--data", str(judged / "bench"), "--judge", "vlm-good-tiny"]
    assert benchmark([*line, str(judged / "out"), str(again)]) == 0
    shown = capsys.readouterr().out
    rows = shown.partition("one judge several times")[2].splitlines()[2:]
    assert rows[0].split() == ["A,", "B:", "SC", "9", "89", "0.056", "1.00"]  # of 6 and 5 once


def test_the_commands_of_the_docs_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the section on trust, from edits that EditScore's data brings to the report."""
    monkeypatch.chdir(tmp_path)
    sets.editscore_bench(tmp_path / "EditReward-Bench")
    config = {"judge": {"model": "simulated"}, "editor": {"model": "simulated"}, "gallery": False}
    config |= {"output_dir": "outputs", "bootstrap_samples": 100, "use_server": "never"}
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(config), "utf-8")
    page = (PROJECT / "docs" / "EDIT_BENCHMARK.md").read_text("utf-8")
    section = page.partition("## How far can the judge be trusted")[2]
    lines = [line.split()[2:] for line in section.split("```")[1].strip().splitlines()]
    assert [line[0] for line in lines] == ["agreement", "agreement", "agreement", "compare"]

    assert benchmark(lines[0], backend=InlineBackend()) == 0
    shown = capsys.readouterr().out
    assert shown.index("overall") < shown.index("pair accuracy, overall:")
    found = json.loads((tmp_path / "outputs/EditReward-Bench/agreement.json").read_text("utf-8"))
    [judge] = found["judges"]
    assert {d: rows[-1]["comparisons"] for d, rows in judge["accuracy"].items()} == {"overall": 2}
    made = tmp_path / lines[1][-1]
    for name in ("seed_1", "seed_2", "run_a", "run_b", "run_c"):
        shutil.copytree(made, tmp_path / "outputs" / name)
    for line in lines[1:]:
        assert benchmark(line) == 0, line
    repeats = json.loads((tmp_path / "repeats.json").read_text("utf-8"))["repeats"]
    assert [(r["score"], r["edits"], r["equal"]) for r in repeats] == [
        ("SC", 3, 1.0), ("PQ", 3, 1.0), ("O", 3, 1.0),
    ]  # fmt: skip
    assert "Holm's correction for 3 comparisons): none." in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_is_missing_is_one_clear_error(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["agreement", "--data", str(judged / "bench"), str(judged / "out")]
    assert benchmark([*line, "--judge", "none"]) == 2
    assert "no verdicts of none; it has vlm-bad-tiny, vlm-good-tiny." in capsys.readouterr().err
    assert benchmark(["agreement", str(judged / "bench")]) == 2
    assert "results.jsonl: cannot be read" in capsys.readouterr().err


def test_without_anything_to_agree_with_nothing_is_edited(
    judged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged)
    assert benchmark(["agreement"], backend=InlineBackend()) == 2
    assert "expected --data PATH with what people preferred, or" in capsys.readouterr().err
    plain = PROJECT / "examples/edit_pairs"
    line = ["agreement", "--data", str(plain), "--output-dir", str(judged / "new")]
    assert benchmark(line, backend=InlineBackend()) == 2
    assert "does not say what people preferred" in capsys.readouterr().err
    assert not (judged / "new").exists() and not (judged / "outputs").exists()


def test_judges_of_other_edits_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = [pair_record(name) for name in ("0a", "0b")]
    for folder, edit in (("x", "one"), ("y", "another"), ("z", "one")):
        for name, score in (("0a", 4.0), ("0b", 6.0)):
            verdict = "add/" + name, (score, score), f"{edit} {name}"
            write_verdict(tmp_path / folder, f"judge-{folder}", *verdict)
        (tmp_path / folder / "results.jsonl").write_text("".join(rows), "utf-8")
    x, y, z = (str(tmp_path / name) for name in "xyz")
    assert benchmark(["agreement", x, y]) == 1
    says = " ".join(capsys.readouterr().err.split())
    assert "A and B have no edit that is the same picture (0 of 2); score one run's edits" in says
    assert f"--score-only {x}." in says
    assert benchmark(["agreement", x]) == 1
    assert "A is the only judge" in capsys.readouterr().err
    assert benchmark(["agreement", x, z]) == 0
    assert "-: an order needs 3 edits, and scores of" in capsys.readouterr().out


def pair_record(name: str) -> str:
    record: dict[str, Any] = {
        "pair_id": name, "category": "add", "instruction": "add a cat", "language": "en",
        "source_images": [], "edited_image": None, "outcome": "scored", "scores": {"O": 4.0},
        "error": None, "edit_seconds": 1.0, "score_seconds": 1.0, "seed": 1,
    }  # fmt: skip
    return json.dumps(record) + "\n"
