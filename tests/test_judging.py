"""What a judge's words are worth, and what tables say of scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apps.edit_benchmark.outputs import write_outputs
from apps.edit_benchmark.ranks import spearman
from apps.edit_benchmark.records import Outcome, Record, lines, read_records
from apps.edit_benchmark.settings import load_benchmark_settings
from apps.edit_benchmark.statistics import bootstrap_mean, bootstrap_mean_of_means
from apps.edit_benchmark.summary import JudgedBy, summarise
from apps.edit_benchmark.table import print_summary
from core.engine.barrier import Barrier
from core.errors import InputError
from core.judge import load_judge, parse_answer
from core.judge_calls import JudgeCall
from core.messages import Lease
from core.tasks import ScoreTask
from workers.models.base import Verdict

JUDGE = load_benchmark_settings({"judge": {"prompts": "viescore.yaml"}}).judge
PAIR = JudgeCall(name="SC", sees=["edited"], text="-", parts=("success", "over_editing"))
JUDGED_BY = JudgedBy("judge", "model", "hash", {}, 1)
YES_NO = JudgeCall(name="O", sees=["edited"], text="-", answer="yes_no")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"score": [7, 9], "reasoning": "good"}', (7, 9)),
        ('```json\n{"score": [7.5, 0]}\n```', (7.5, 0)),
        ('I think {"score": [10, 10]} fits.', (10, 10)),
    ],
)
def test_an_answer_in_form_is_taken(raw: str, expected: tuple[float, float]) -> None:
    parts = parse_answer(raw, PAIR)
    assert parts == dict(zip(PAIR.parts, expected, strict=True))


@pytest.mark.parametrize(
    "raw",
    [
        "", "8", "score: 8, 9", '{"score": [7]}', '{"score": [7, 8, 9]}', '{"score": [7, 11]}',
        '{"score": [7, -1]}', '{"score": ["7", "8"]}', '{"score": [true, false]}',
        '{"score": null}', '{"scores": [7, 8]}', '{"score": [7, 8', '{"score": [7, NaN]}',
        '{"score": [1' + 400 * "0" + ", 5]}", "[7, 8]",
    ],
)  # fmt: skip
def test_nothing_is_guessed_from_an_answer_out_of_form(raw: str) -> None:
    assert parse_answer(raw, PAIR) is None


@given(st.text(max_size=60))
def test_any_words_are_scores_or_nothing(raw: str) -> None:
    parts = parse_answer(raw, PAIR)
    assert parts is None or all(0 <= value <= 10 for value in parts.values())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"score": "yes", "reasoning": "it is"}', 1.0),
        ('{"score": "No"}', 0.0),
        ('{"score": "maybe"}', None),
        ('{"score": 1}', None),
    ],
)
def test_yes_and_no(raw: str, expected: float | None) -> None:
    parts = parse_answer(raw, YES_NO)
    assert parts == (None if expected is None else {"score": expected})


def test_the_overall_score_is_the_geometric_mean_of_both_calls() -> None:
    prompts = load_judge(JUDGE).prompts
    assert prompts.scores({"SC": 4.0, "PQ": 9.0}) == {"SC": 4.0, "PQ": 9.0, "O": 6.0}
    assert prompts.scores({"SC": 4.0, "PQ": None}) is None


def test_what_decides_scores_is_in_the_judges_identity() -> None:
    settings = JUDGE
    first = load_judge(settings).identity("model")
    assert load_judge(settings.model_copy(update={"batch_size": 1})).identity("model") == first
    for change in ({"prompts": "yes_no.yaml"}, {"temperature": 0.5}, {"image_area": 999}):
        assert load_judge(settings.model_copy(update=change)).identity("model") != first
    assert load_judge(settings).identity("other") != first
    more = {"minimum_mass": 0.5}
    assert load_judge(settings.model_copy(update=more)).identity("model") == first  # not its matter
    logits = settings.model_copy(update={"type": "vlm_logits", "prompts": "viescore_logits.yaml"})
    stricter = load_judge(logits.model_copy(update=more)).identity("model")
    assert stricter != load_judge(logits).identity("model")


def test_a_judges_verdicts_lie_apart_from_those_of_other_models() -> None:
    judge = load_judge(JUDGE)
    assert judge.name("Qwen/Qwen3-VL-8B-Instruct@main") == "vlm-viescore-Qwen3-VL-8B-Instruct"
    assert judge.name("my judge#1a2b") == "vlm-viescore-my-judge"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lowest: -5", "greater than or equal to 0"),
        ("tokens: {a: -1}", "greater than or equal to 0"),
    ],
)
def test_scores_that_have_no_geometric_mean_are_refused(
    tmp_path: Path, change: str, message: str
) -> None:
    call = {"name": "SC", "sees": ["edited"], "text": "?", **yaml.safe_load(change)}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": "bad", "calls": [call]}))
    with pytest.raises(InputError, match=message):
        load_judge(JUDGE.model_copy(update={"prompts": "bad.yaml"}), tmp_path)


def test_calls_of_one_name_are_refused(tmp_path: Path) -> None:
    call = {"name": "SC", "sees": ["edited"], "text": "?"}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": "bad", "calls": [call, call]}))
    with pytest.raises(InputError, match="several calls need different names"):
        load_judge(JUDGE.model_copy(update={"prompts": "bad.yaml"}), tmp_path)


def test_a_prompt_file_without_score_tokens_is_refused_for_logits() -> None:
    settings = JUDGE.model_copy(update={"type": "vlm_logits"})
    with pytest.raises(InputError, match="needs `prefix` and `tokens`"):
        load_judge(settings)


def test_a_bad_prompt_file_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\ncalls:\n  - name: SC\n    sees: [audio]\n")
    settings = JUDGE.model_copy(update={"prompts": "bad.yaml"})
    with pytest.raises(InputError, match=r"bad\.yaml: calls\.0\.sees"):
        load_judge(settings, tmp_path)


# -- statistics --------------------------------------------------------------


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400).tolist()
    interval = bootstrap_mean(values, 4000, seed=1)
    assert interval is not None and interval.low is not None and interval.high is not None
    error = 1.96 * np.std(values) / np.sqrt(400)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.high - interval.mean == pytest.approx(error, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(error, rel=0.1)
    assert bootstrap_mean(values, 4000, seed=1) == interval
    assert bootstrap_mean([], 100, seed=1) is None


def test_every_group_counts_the_same_in_the_mean_of_means() -> None:
    interval = bootstrap_mean_of_means([[1.0] * 90, [3.0] * 2, []], 200, seed=0)
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == (2.0, 2.0, 2.0)
    # Nobody knows how sure a single value is.
    interval = bootstrap_mean_of_means([[1.0] * 90, [3.0], []], 200, seed=0)
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == (2.0, None, None)


def test_rank_correlation_with_ties() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # By hand: ranks 1 2.5 2.5 4 and 1 3 2 4.
    assert spearman([1, 2, 2, 3], [1, 3, 2, 9]) == pytest.approx(0.9487, abs=1e-4)
    assert spearman([1, 1, 1], [1, 2, 3]) is None


def record(category: str, outcome: Outcome, overall: float | None = None) -> Record:
    scores = None if overall is None else {"O": overall}
    return Record("p", category, "x", "en", ("a.png",), None, outcome, scores, None, 0, 0, 1)


def test_a_summary_counts_what_has_no_score_and_averages_over_categories() -> None:
    records = [
        *[record("easy", "scored", 8.0)] * 3,
        record("easy", "edit_failed"),
        record("hard", "scored", 2.0),
        record("hard", "unparsed"),
        record("hard", "score_failed"),
        record("none", "not_tried"),
    ]
    summary = summarise(records, ["O"], JUDGED_BY, "editor", 100)
    easy, hard, none = summary.categories
    assert (easy.n, easy.scored, easy.failed, easy.scores["O"].mean) == (4, 3, 1, 8.0)
    assert (hard.n, hard.failed, hard.unparsed, hard.scores["O"].mean) == (3, 1, 1, 2.0)
    assert none.scores == {} and none.not_tried == 1
    assert summary.overall.n == 8 and summary.overall.scores["O"].mean == 5.0


def test_a_table_shows_categories_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    records = [record(c, "scored", 1.0) for c in ("[red]", "[/b]", ":cat: 🌧", "two\nlines")]
    print_summary(summarise(records, ["O"], JUDGED_BY, "editor", 100), Path("out"))
    rows = capsys.readouterr().out.split("\n")[3:]
    for row, shown in zip(rows, ["[red]", "[/b]", ":cat: 🌧", "two\\nlines"], strict=False):
        assert row.startswith(f"{shown} ")


def test_tables_for_gedit_bench_are_those_of_this_run_alone(tmp_path: Path) -> None:
    folder, rated = tmp_path / "run", {"SC": 8.0, "PQ": 8.0, "O": 8.0}
    sky, ground, old = (
        replace(record(category, "scored"), scores=rated) for category in ("sky", "a/b", "old")
    )
    folder.mkdir()
    for records in ([sky, old], [sky, replace(ground, scores=None)]):
        write_outputs(folder, records, summarise(records, ["O"], JUDGED_BY, "editor", 100))
        (folder / "gedit" / "notes.txt").write_text("mine")
    rows = {file.name: len(file.read_text().split("\n")) - 2 for file in folder.glob("gedit/*.csv")}
    assert rows == {"run_sky_gpt_score.csv": 1, "run_a_b-c14cddc0_gpt_score.csv": 0}
    assert (folder / "gedit" / "notes.txt").exists()


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = [replace(record("sky", "scored", 8.0), instruction="a\u2028b\x85c")] * 2
    (tmp_path / "results.jsonl").write_text(lines(records), "utf-8")
    assert read_records(tmp_path) == records


def test_a_verdict_holds_whatever_words_and_paths_hold() -> None:
    task = ScoreTask("x", ("not UTF-8 \udcff.png",), "e.png", metadata={"category": "\ud800 颜色"})
    verdict = Verdict({"scores": None}, {"calls": [{"raw": "half \udfff"}]})
    written = json.loads(verdict.encode(Lease("l", 1, task, None, "f", "partial")))
    assert written["task"]["source_images"] == list(task.source_images)
    assert written["task"]["metadata"] == task.metadata
    assert written["calls"] == verdict.details["calls"]


# -- sharing devices ---------------------------------------------------------


def test_a_barrier_lets_each_worker_start_once_a_step() -> None:
    now = 0.0
    barrier = Barrier(lambda: now)
    assert barrier.may_start("a", frozenset())
    barrier.started("a")
    assert barrier.may_start("b", frozenset({"a"}))
    barrier.started("b")
    assert not barrier.may_start("a", frozenset({"b"}))
    now = 2.5
    assert barrier.may_start("a", frozenset())
    barrier.started("a")
    assert (barrier.waited, barrier.steps) == (2.5, 2)
