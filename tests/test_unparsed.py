"""Edits without a readable answer: said why, asked again alone; and what the summary says of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from apps.edit_benchmark.records import Record, lines, read_records
from apps.edit_benchmark.summary import JudgedBy, summarise, to_json
from apps.edit_benchmark.table import print_summary
from tests.conftest import Project
from tests.edit_world import Bench, pair


@pytest.fixture
def bench(project: Project) -> Bench:
    return Bench(project)


def inodes(files: list[Path]) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in files}


def test_only_unparsed_pairs_are_asked_again(bench: Bench) -> None:
    bench.write_pairs([pair(0), pair(1, "!unparsed:2"), pair(2, "!unparsed:3"), pair(3)])
    first = bench.run()
    assert bench.outcomes() == ["scored", "unparsed", "unparsed", "scored"]
    assert "--retry-unparsed" in first.errors and "sky/001: No score: SC: no JSON" in first.errors
    where = "scores/vlm-viescore-simulated/sky/001.json"
    reason = f"No score: SC: no JSON object. The judge's words are in {where}."
    assert bench.records()[1]["error"] == reason
    edits, verdicts = inodes(bench.edits()), inodes(bench.verdicts())

    bench.run()
    assert inodes(bench.verdicts()) == verdicts, "the same command leaves them as they are"

    run = bench.run("--retry-unparsed")
    assert run.process.returncode == 1
    assert bench.outcomes() == ["scored", "scored", "unparsed", "scored"]
    assert "2 verdicts without a score: asked for again" in run.errors
    assert "Edit with:" not in run.errors, "no editor is loaded where nothing is to be edited"
    assert inodes(bench.edits()) == edits
    again = inodes(bench.verdicts())
    assert [name for name in again if again[name] != verdicts[name]] == ["001.json", "002.json"]

    run = bench.run("--retry-unparsed", stages="overlapped")
    assert run.process.returncode == 0, run.errors
    assert bench.outcomes() == ["scored"] * 4
    assert bench.summary()["overall"]["unparsed"] == 0
    final = inodes(bench.verdicts())
    assert [name for name in final if final[name] != again[name]] == ["002.json"]
    bench.run()
    assert inodes(bench.verdicts()) == final and bench.outcomes() == ["scored"] * 4


def test_a_judge_that_says_the_same_each_time_is_not_asked_again(bench: Bench) -> None:
    bench.write_pairs([pair(0, "!unparsed:2")])
    judge = {"type": "vlm_logits", "prompts": "viescore_logits.yaml"}
    bench.run(judge=judge)
    run = bench.run("--retry-unparsed", judge=judge)
    assert "a judge of type vlm_logits says the same each time" in run.errors
    assert bench.outcomes() == ["unparsed"]


def test_a_damaged_verdict_is_asked_for_again_whatever_its_size(bench: Bench) -> None:
    bench.write_pairs([pair(i) for i in range(3)])
    bench.run()
    before = bench.records()
    first, second, _ = bench.verdicts()
    first.write_bytes(b"\0" * first.stat().st_size)
    changed = second.read_text("utf-8").replace('"scores"', '"stores"')
    second.write_text(changed, "utf-8")
    another = bench.results / "scores" / "another" / "sky" / "002.json"
    another.parent.mkdir(parents=True)
    another.write_text("{")
    run = bench.run("--retry-unparsed")
    assert "Plan for scores: 1 damaged or altered since, 2 unchanged." in run.errors
    assert run.process.returncode == 1 and "Traceback" not in run.errors
    assert "score sky/001: The verdict 001.json is damaged or gone" in run.errors
    outcomes = [(r["outcome"], r["error"]) for r in bench.records()]
    where = "The verdict 001.json is damaged or gone; delete it, and its edit is scored again."
    assert outcomes == [("scored", None), ("score_failed", where), ("scored", None)]
    second.unlink()
    assert bench.run().process.returncode == 0
    assert [r["scores"] for r in bench.records()] == [r["scores"] for r in before]


def test_an_edit_that_cannot_be_read_any_more_is_told_of(bench: Bench) -> None:
    bench.write_pairs([pair(0), pair(1)])
    bench.run()
    edit = bench.edits()[0]
    edit.write_bytes(b"\0" * edit.stat().st_size)
    run = bench.run()
    assert run.process.returncode == 1 and bench.outcomes() == ["score_failed", "scored"]
    assert "score sky/000: failed: edited_image" in run.errors


JUDGED_BY = JudgedBy("judge", "model", "hash", {}, 1)
SCORED = Record("p", "sky", "x", "en", ("a.png",), None, "scored", {"O": 5.0}, None, 0, 0, 1)


def test_the_summary_shows_how_much_probability_the_score_tokens_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    unparsed = replace(SCORED, category="ground", outcome="unparsed", scores=None)
    records = [
        replace(SCORED, mass={"SC": 1.0, "PQ": 0.5}),
        replace(SCORED, mass={"SC": 0.5, "PQ": 0.5}),
        replace(unparsed, mass={"SC": 2e-8, "PQ": 2e-8}),
        replace(SCORED, category="water"),
    ]
    summary = summarise(records, ["O"], JUDGED_BY, "editor", 100)
    sky, ground, water = json.loads(to_json(summary))["categories"]
    assert (sky["mass"], water["mass"]) == ({"SC": 0.75, "PQ": 0.5}, {})
    assert ground["mass"] == {"SC": 2e-8, "PQ": 2e-8}
    assert summary.overall.mass == pytest.approx({"SC": 0.5, "PQ": 1 / 3})
    print_summary(summary, tmp_path)
    header, *rows = capsys.readouterr().out.splitlines()[2:]
    assert header.split()[-1] == "mass"
    assert [row.split()[-1] for row in rows[:4]] == ["0.62", "2e-08", "-", "0.42"]
    (tmp_path / "results.jsonl").write_text(lines(records), "utf-8")
    assert read_records(tmp_path) == records


def test_a_judge_that_answers_in_words_has_no_such_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(summarise([SCORED], ["O"], JUDGED_BY, "editor", 100), tmp_path)
    assert "mass" not in capsys.readouterr().out
