"""Prompt files: which questions a pair is asked, what they name of it, and how scores are made."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError
from core.intake.admission import fingerprint
from core.intake.task_kinds import Contents
from core.judge import JUDGES_DIR, Judge, load_judge
from core.judge_combining import capped, combined, rescaled
from core.judge_protocol import JudgePrompts
from core.judge_rows import fields_named, fits, row_of
from core.tasks import ScoreTask, task_from_json, task_to_json

JUDGE = load_benchmark_settings().judge
ASKED = {"sees": ["source", "edited"], "text": "{instruction}?"}


def judge(folder: Path, call: dict[str, Any] | None = None, **prompts: Any) -> Judge:
    given = {"name": "mine", "calls": [{"name": "A", **ASKED, **(call or {})}], **prompts}
    (folder / "mine.yaml").write_text(yaml.safe_dump(given), "utf-8")
    return load_judge(JUDGE.model_copy(update={"prompts": "mine.yaml"}), folder)


def task(**changes: Any) -> ScoreTask:
    given = {"instruction": "make it night", "source_images": ("a.png",), "edited_image": "b.png"}
    return ScoreTask(**{**given, **changes})


# -- what stays as it was ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "prompts", "identity"),
    [
        ("vlm", "viescore.yaml", "2adc3e83e0f65afb"),
        ("vlm", "demo.yaml", "9cef72cdb767147a"),
        ("vlm", "yes_no.yaml", "8aefa0cb9577f080"),
        ("vlm_logits", "viescore_logits.yaml", "b315c6cff62785a3"),
        ("clip", None, "b5104afe2280eb56"),
    ],
)
def test_judges_of_earlier_versions_keep_their_identity(
    kind: str, prompts: str | None, identity: str
) -> None:
    changes = {"type": kind, "prompts": prompts, "image_area": 1048576, "max_new_tokens": 512}
    assert load_judge(JUDGE.model_copy(update=changes)).identity("m#0") == f"m#0 {identity}"


def test_scores_of_earlier_versions_keep_their_fingerprint() -> None:
    files = Contents(pictures={"a.png": "aa", "b.png": "bb"})
    before = "1c7fef0ccbd0a9f5fd5b4727b88cd6f55344885a03d217919ab4f9d02607591b"
    assert fingerprint(task(seed=3), files, "m", "auto") == before
    assert not {"fields", "target_images", "reference_images"} & task_to_json(task()).keys()


def test_what_a_judge_is_told_of_a_pair_decides_its_scores() -> None:
    files = Contents(pictures={"a.png": "aa", "b.png": "bb", "c.png": "cc"})
    tasks = [
        task(fields={"hint": "stars"}),
        task(fields={"hint": "rain"}),
        task(target_images=("c.png",)),
        task(reference_images=("c.png",)),
    ]
    assert len({fingerprint(t, files, "m", "auto") for t in tasks}) == 4
    assert [task_from_json(task_to_json(t)) for t in tasks] == tasks


# -- which questions, and what they name ---------------------------------------------------------


def test_a_pair_is_asked_the_first_variant_that_fits(tmp_path: Path) -> None:
    call = {
        "variants": [
            {"where": {"category": ["style", "tone"]}, "text": "style {instruction}"},
            {"where": {"hint": True}, "text": "hint {hint}"},
        ]
    }
    prompts = judge(tmp_path, call, fields=["hint"]).prompts
    rows = [{"category": "tone", "hint": "x"}, {"hint": "x{instruction}"}, {"hint": " "}]
    said = [prompts.asked({"instruction": "do", **row})[0] for row in rows]
    texts = [one.question("do", row) for one, row in zip(said, rows, strict=True)]
    assert texts == ["style do", "hint x{instruction}", "do?"]
    assert prompts.row_fields == ["hint", "category"]


def test_a_pair_that_lacks_what_a_question_names_is_refused_by_name(tmp_path: Path) -> None:
    call = {"sees": ["edited", "target"], "text": "{instruction}: {explain_en}?"}
    prompts = judge(tmp_path, call, fields=["explain_en"]).prompts
    assert "needs the field 'explain_en'" in str(prompts.problem_of(row_of(task())))
    named = task(fields=fields_named({"explain_en": "", "other": 1}, prompts.row_fields))
    assert "shows target pictures" in str(prompts.problem_of(row_of(named)))
    whole = row_of(task(fields={"explain_en": ""}, target_images=("c.png",)))
    assert prompts.problem_of(whole) is None
    nobody = judge(tmp_path, {"where": {"category": "a"}}).prompts
    assert "No question" in str(nobody.problem_of(row_of(task(fields={"category": "b"}))))


def test_row_fields_are_texts_and_null_is_none() -> None:
    row = {"a": 1, "b": None, "c": float("nan"), "d": ["x"], "e": "é", "f": False}
    assert fields_named(row, list("abcdefg")) == {"a": "1", "d": '["x"]', "e": "é", "f": "false"}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [("x", True), (["y", "x"], True), ("y", False), (True, True), (False, False)],
)
def test_conditions_are_on_values(condition: Any, holds: bool) -> None:
    assert fits({"a": "x"}, {"a": condition}) is holds
    assert fits({}, {"a": condition}) is (condition is False)


@pytest.mark.parametrize(
    ("call", "prompts", "message"),
    [
        ({"text": "{instruction} {hint}"}, {}, r"placeholder \{hint\}; .* under `fields`"),
        ({"where": {"hint": True}}, {}, "'hint' is no row field"),
        ({"text": ""}, {}, "needs a text, text_from, or variants"),
        ({"combine": "weights"}, {}, "needs weights"),
        ({"caps": {"score": "other"}}, {}, "'other' is none of parts"),
        ({"lowest": 5, "highest": 5}, {}, "has to be above lowest"),
        ({}, {"overall": {"combine": "weights", "weights": {"B": 1}}}, "'B', which is no call"),
        ({}, {"overall": {"combine": "all_or_nothing"}}, "needs full"),
        ({}, {"overall": {"of": [1, 5]}}, "two scales"),
        ({"text_from": {"file": "no.json"}, "text": ""}, {}, "no.json' cannot be read: No such"),
    ],
)
def test_a_prompt_file_that_cannot_work_is_refused(
    tmp_path: Path, call: dict[str, Any], prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        judge(tmp_path, call, **prompts)


def test_pictures_and_words_come_in_the_order_that_the_file_says(tmp_path: Path) -> None:
    call = {"captions": {"edited": "Edited {n}:"}, "text_first": True}
    [asked] = judge(tmp_path, call).prompts.calls
    pieces = asked.pieces({"instruction": "do"}, {"source": 2, "edited": 1})
    assert pieces == [
        ("text", "do?"),
        ("picture", "source", 0),
        ("picture", "source", 1),
        ("text", "Edited 1:"),
        ("picture", "edited", 0),
    ]


def test_official_texts_are_read_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text('import os\nA = "0 to 10 {instruct}"\nB = """{{"x": 1}}"""\n')
    source = {"file": "p.py", "entries": ["A", "B"], "replace": {"10": "25"}, "formatted": True}
    (tmp_path / "end.txt").write_text(' {{"end"}}')
    call = {"text": "", "text_from": [source, {"file": "end.txt"}]}
    first = judge(tmp_path, call, placeholders={"{instruct}": "instruction"})
    [asked] = first.prompts.calls
    assert asked.question("do") == '0 to 25 do\n{"x": 1} {{"end"}}'
    (tmp_path / "p.py").write_text('A = "{instruct}"\nB = ""\n')
    again = judge(tmp_path, call, placeholders={"{instruct}": "instruction"})
    assert first.prompt_hash != again.prompt_hash
    with pytest.raises(InputError, match="has no text 'C'; there are A, B"):
        judge(tmp_path, {"text": "", "text_from": {"file": "p.py", "entries": ["C"]}})


# -- how scores are made -------------------------------------------------------------------------


def test_ways_of_making_one_score_of_several() -> None:
    parts = {"a": 2.0, "b": 8.0}
    assert combined(parts, "least") == 2
    assert combined(parts, "mean") == 5
    assert combined(parts, "geometric_mean") == 4
    assert combined(parts, "weights", {"b": 0.25, "c": 9}) == 2
    assert combined(parts, "all_or_nothing", full=2) == 1
    assert combined(parts, "all_or_nothing", full=3) == 0
    assert capped({"a": 2.0, "b": 8.0}, {"b": "a", "c": "a", "a": "d"}) == {"a": 2, "b": 2}
    assert rescaled(3, (1, 5), (0, 100)) == 50


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Reason: 3 cats: fine\nPrompt: 4\nNaturalness: **5**\nDetail: 3/5", [4, 5, 3]),
        ("<think>A: 1\nB: 1\nC: 1</think>\nA: 4\nB: 5\nC: 3.", [4, 5, 3]),
        ("A: 4\nB: 5", None),
        ("A: 4\nB: 5\nC: 9", None),
        ("<think>A: 4\nB: 5\nC: 3", None),
    ],
)
def test_scores_in_lines(tmp_path: Path, raw: str, expected: list[float] | None) -> None:
    form = {"answer": "lines", "parts": ["a", "b", "c"], "lowest": 1, "highest": 5}
    [call] = judge(tmp_path, form).prompts.calls
    parts = call.read(raw).parts
    assert (parts and list(parts.values())) == expected
    assert call.read(raw, cut=True).parts is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("It is good.\n\n**Final Score:** **4**", [4]),
        ("Final Score: 4.", [4]),
        ("**Final Score**: 4\n...\nFinal score: 4", [4]),
        ("**Final Score:** **4** or rather **Final Score:** **5**", None),
        ("**Final Score:** **1-5**", None),
        ("4", None),
    ],
)
def test_scores_behind_the_words_final_score(
    tmp_path: Path, raw: str, expected: list[float] | None
) -> None:
    form = {"answer": "final_score", "lowest": 1, "highest": 5}
    [call] = judge(tmp_path, form).prompts.calls
    parts = call.read(raw).parts
    assert (parts and list(parts.values())) == expected


def test_examples_of_the_page_on_judges_are_valid() -> None:
    page = (JUDGES_DIR.parent.parent / "docs" / "JUDGES.md").read_text("utf-8")
    found = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    protocols = [JudgePrompts.model_validate(given) for given in found if "calls" in given]
    others = [load_benchmark_settings(given) for given in found if "calls" not in given]
    assert len(protocols) == 2 and len(others) == 1
    [_, mine] = protocols
    row = {"instruction": "do", "explain_en": "stars", "category": "sky"}
    scores = mine.scores({"instruction": 5, "quality": 10}, row)
    assert scores is not None and scores["O"] == 100


def test_yes_and_no_have_a_scale_of_their_own(tmp_path: Path) -> None:
    [call] = judge(tmp_path, {"answer": "yes_no", "reported": [0, 100]}).prompts.calls
    assert [call.value_of({"score": value}) for value in (0, 1)] == [0, 100]
    [call] = judge(tmp_path, {"answer": "yes_no", "combine": "all_or_nothing"}).prompts.calls
    assert [call.value_of({"score": value}) for value in (0, 1)] == [0, 1]


def test_a_geometric_mean_of_scores_below_zero_is_refused(tmp_path: Path) -> None:
    calls = [{"name": name, **ASKED, "reported": [-1, 1]} for name in "AB"]
    with pytest.raises(InputError, match="geometric mean needs scores from 0 on, and A may be"):
        judge(tmp_path, calls=calls)
    judge(tmp_path, calls=calls, overall={"combine": "mean"})


def test_a_penalty_of_a_question_that_was_not_asked_punishes_nobody(tmp_path: Path) -> None:
    punished = {"call": "B", "at_most": 2, "factor": 0.5, "floor": 1}
    calls = [{"name": "A", **ASKED}, {"name": "B", **ASKED, "where": {"category": "b"}}]
    made = judge(tmp_path, calls=calls, overall={"combine": "mean", "penalty": punished}).prompts
    scores = made.scores({"A": 2.0}, {"instruction": "do", "category": "a"})
    assert scores is not None and scores["O"] == 2


def test_which_picture_is_which_decides_a_verdict() -> None:
    """Where one is given twice its content does not tell."""
    pictures = Contents(pictures={"a.png": "1", "b.png": "2"})
    kinds = [
        task(target_images=("a.png",)), task(target_images=("b.png",)),
        task(reference_images=("a.png",)), task(),
    ]  # fmt: skip
    assert len({fingerprint(one, pictures, "model", "float32") for one in kinds}) == 4
