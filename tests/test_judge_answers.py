"""What a judge's words are worth: the unambiguous is taken, nothing is guessed."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.judge_answer import Form, read_answer
from core.judge_thought import closing, left_open

PAIR = Form(("success", "over_editing"), 0, 10)
ONE = Form(("score",), 0, 9)
YES_NO = Form(("score",), 0, 1, yes_no=True)
DRAFT = '{"score": [9, 9], "reasoning": "night"}'
RIGHT = '{"score": [2, 3], "reasoning": "boat lost"}'


def taken(raw: str, form: Form = PAIR, cut: bool = False) -> list[float] | None:
    parts = read_answer(raw, form, cut).parts
    return None if parts is None else list(parts.values())


@pytest.mark.parametrize(
    "raw",
    [
        f"<think>{DRAFT}?</think>{RIGHT}",
        f"Maybe {DRAFT}. But the boat is gone.\n</think>\n\n{RIGHT}",  # the template opened it
        f"<think>{DRAFT}</think> No: {DRAFT}</think>{RIGHT}",
        f"<THINK>{DRAFT}</THINK>{RIGHT}",
        f"<thinking>\n{DRAFT}\n</thinking>\n```json\n{RIGHT}\n```",
        f"<seed:think>{DRAFT}</seed:think>{RIGHT}",
        f"[THINK]{DRAFT}[/THINK]{RIGHT}",
        f"◁think▷{DRAFT}◁/think▷{RIGHT}",
        f"<|channel>thought\n{DRAFT}<channel|>{RIGHT}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|channel|>final<|message|>{RIGHT}",
        f"<longcat_think>{DRAFT}</longcat_think>{RIGHT}",
        f"<unused94>thought\n{DRAFT}<unused95>{RIGHT}",
        f"<|START_THINKING|>{DRAFT}<|END_THINKING|>{RIGHT}",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>{RIGHT}",
        f"<scratchpad>{DRAFT}</scratchpad>{RIGHT}",
        f"<think>{DRAFT}</think><answer><|begin_of_box|>{RIGHT}<|end_of_box|></answer>",
        f"Perhaps {DRAFT}. <answer>{RIGHT}</answer>",
    ],
)
def test_only_what_follows_a_thought_is_scored(raw: str) -> None:
    assert taken(raw) == [2, 3]


@pytest.mark.parametrize(
    "raw",
    [
        f"<think>{DRAFT}",
        f"{DRAFT}</think>",
        f"a</think>{DRAFT}<think>or rather {RIGHT}",
        f"[THINK]{DRAFT}",
        f"<answer>{DRAFT}</answer><answer>{RIGHT}</answer>",
    ],
)
def test_a_thought_without_an_answer_is_no_score(raw: str) -> None:
    assert taken(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        f"{DRAFT} {RIGHT}",
        f"First {DRAFT}, on second thoughts\n{RIGHT}",
        '{"score": [9, 9], "score": [2, 3]}',
        '{"score": [9, 9], "Score": [2, 3]}',
        '{"score": [9, 9], "success": 2, "over_editing": 3}',
        '{"success": 9, "success": 2, "over_editing": 3}',
        '{"score": [9, 9], "success": 2}',
        '{"score": [9, 9], "success": 2, "over_editing": "a little"}',
        "{'score': [9, 9]} {'score': [2, 3]}",
        "{score: [9, 9]} {score: [2, 3]}",
        '{"score": [9, 9], "reasoning": "says "A"} {"score": [2, 3]}',
        '{"score": [2, 3], "reasoning": "one "may" say "score": [9, 9]"}',
        '{"reasoning": "says "A", "score": [9, 9]", "score": [2, 3]}',
        '{"score": [success, over_editing]} {"score": [2, 3]}',
        f'{{"thoughts": "first the boat"}} {RIGHT}',
        '{score": [2, 3], "reasoning": [{"score": [9, 9]}]}',
        '"score": [2, 3], "reasoning": {"a": 1, "score": [9, 9]}',
        '{"s"core": [2, 3], "reasoning": [{"score": [9, 9]}]}',
        '{""reasoning": {"a": 1, "score": [9, 9]}, "score": [2, 3]}',
    ],
)
def test_different_answers_are_no_score(raw: str) -> None:
    assert taken(raw) is None


def test_equal_answers_are_one() -> None:
    assert taken(f"{RIGHT}\n{RIGHT}") == [2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "The sky is dark.\nThe rest is unchanged.",
        "\tThe sky\r\n\r\nis dark.",
        'The sign now says "OPEN" as asked.',
        'It says "OPEN"',
        '"OPEN", "CLOSED": both are there',
        'The sign\nsays "OPEN", "score" is not spelt out',
        "it\\'s gone",
        "{instruction} was {followed}",
    ],
)
@pytest.mark.parametrize("order", ["scores first", "scores last"])
@pytest.mark.parametrize("comma", ["", ","])
def test_a_reason_in_bad_json_costs_no_score(text: str, order: str, comma: str) -> None:
    members = ['"score": [8, 9]', f'"reasoning": "{text}"']
    if order == "scores last":
        members.reverse()
    if order == "scores last" and "{" in text and comma:
        return  # braces behind which an example's scores might stand
    assert taken("```json\n{" + ", ".join(members) + comma + "}\n```") == [8, 9]


@pytest.mark.parametrize(
    "raw",
    [
        '{"score": [8, 9,], "reasoning": "good"}',
        "{'score': [8, 9], 'reasoning': 'good'}",
        "{'reasoning': 'it's gone', 'score': [8, 9]}",
        "{'score': (8, 9), 'reasoning': None}",
        '{score: [8, 9], reasoning: "good"}',
        "{“score”: [8, 9], “reasoning”: “good”}",
        '{"score": [8, 9],\n// both are fine\n"reasoning": "good"}',
        '{"score": [8, 9] "reasoning": "good"}',
        '{"SCORE": [8.0, 9e0]}',
        '{"score": {"success": 8, "over_editing": 9}}',
        '{"success": 8, "over_editing": 9, "reasoning": "says "OPEN""}',
        '{"reasoning": "says "OPEN" now", "success": 8, "over_editing": 9}',
        '{"score": [8, 9], "success": "yes", "over_editing": "a little"}',
        '[{"score": [8, 9]}]',
        '{"reasoning": "says "OPEN"", "score": [8, 9]} I hope this helps.',
        '||V^=^V||\n{"score" : [8, 9]}\n||V^=^V||',
    ],
)
def test_what_models_write_instead_of_json_is_read(raw: str) -> None:
    assert taken(raw) == [8, 9]


WHOLE = '{"analysis": "the boat is gone", "score": [8, 9], "reasoning": "The boat is lost"}'


def test_an_answer_that_is_cut_keeps_scores_that_are_whole() -> None:
    known = WHOLE.index("]") + 1
    for end in range(len(WHOLE)):
        assert taken(WHOLE[:end], cut=True) == ([8, 9] if end >= known else None), WHOLE[:end]


def test_a_number_at_the_end_may_be_half_of_one() -> None:
    assert taken('{"score": 8', ONE) is None
    assert taken('{"score": 8, "reas', ONE) == [8]
    assert taken('{"score": "yes', YES_NO) is None
    assert taken('{"score": "yes"', YES_NO) == [1]


def test_what_looks_like_an_end_in_a_cut_text_is_no_score() -> None:
    raw = '{"reasoning": "it should be "x", "score": [8, 9]} but the boat'
    assert taken(raw, cut=True) is None


def test_a_judge_that_went_on_after_its_scores_may_have_changed_them() -> None:
    assert taken(f"Maybe {DRAFT}. But the boat", cut=True) is None
    assert taken(f"```json\n{RIGHT}\n```\n", cut=True) == [2, 3]


@pytest.mark.parametrize(
    "raw",
    [
        '{"score": ["8", "9"]}', '{"score": "[8, 9]"}', '{"score": [8, 1e400]}',
        '{"score": [8, -0.5]}', '{"score": [8, Infinity]}', '{"score": [8, 11], "a": "b "c""}',
        '{"score": [8/10, 9/10]}', '{"score": [[8, 9]]}', '{"success": 8}', '{"score": {"a": 1}}',
        '{"score": [08, 9], }', '{"score": [8, 9, 1],}', '{"result": {"score": [8, 9]}}',
        '{"score": [1' + 5000 * "0" + ", 5]}",
    ],
)  # fmt: skip
def test_what_is_no_number_in_range_is_no_score(raw: str) -> None:
    assert taken(raw) is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty"),
        ("<think>hm", "thought has no end"),
        ("8 and 9", "no JSON object"),
        (DRAFT + RIGHT, "several different scores"),
        ('{"score": [8, 11]}', "11 is outside 0 to 10"),
        ('{"score": [8]}', "[8] is not one number for each of success, over_editing"),
        ('{"score": ["8", 9]}', "'8' is not a number"),
        ('{"scores": [8, 9]}', 'no "score"'),
        ('{"score": [8, 9', "cannot be read"),
    ],
)
def test_no_score_has_its_reason(raw: str, reason: str) -> None:
    problem = read_answer(raw, PAIR).problem
    assert problem is not None and reason in problem


scores = st.integers(0, 10) | st.floats(0, 10).map(lambda x: round(x, 1))
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\'), max_size=40)


@given(st.tuples(scores, scores), words, st.booleans())
def test_scores_are_read_whatever_the_reason_says(
    pair: tuple[float, float], reason: str, first: bool
) -> None:
    members: list[tuple[str, Any]] = [("score", list(pair)), ("reasoning", reason)]
    raw = json.dumps(dict(members if first else reversed(members)), ensure_ascii=False)
    assert taken(raw) in (list(pair), None)  # None: the reason looks like the mark of a thought
    if "<" not in reason and "◁" not in reason and "[" not in reason:
        assert taken(raw) == list(pair)


@given(st.lists(st.sampled_from([*"{}[]\",:'", '"score"', "8", "[8, 9]", "a", "\n", "</think>"])))
def test_any_rubble_is_scores_in_range_or_nothing(pieces: list[str]) -> None:
    for form in (PAIR, ONE, YES_NO):
        found = taken("".join(pieces), form)
        assert found is None or all(form.lowest <= value <= form.highest for value in found)


def test_a_thought_that_a_prompt_opens_is_seen_and_can_be_ended() -> None:
    for mark, end in {
        "<think>": "</think>",
        "[THINK]": "[/THINK]",
        "◁think▷": "◁/think▷",
        "<|channel>thought": "<channel|>",
        "<unused94>thought": "<unused95>",
        "<|START_THINKING|>": "<|END_THINKING|>",
        "<longcat_think>": "</longcat_think>",
    }.items():
        assert left_open(f"<|im_start|>assistant\n{mark}\n") == mark
        assert closing(mark) == end
        assert taken(f"{mark}{DRAFT}{end}{RIGHT}") == [2, 3]
    assert left_open("<|im_start|>assistant\n<think>\n\n</think>\n\n") == ""


def test_long_rubble_is_read_in_a_moment() -> None:
    started = time.process_time()
    for piece in ('{"a": 1, ', '"a", "score": [8, 9] ', '{"a":', '{"score": [', "</think>", "1, "):
        taken('{"r": "' + 20_000 * piece)
        taken(20_000 * piece)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("Yes.", [1]),
        ("no", [0]),
        ("<think>No?</think>\n**yes**", [1]),
        ("“No”!", [0]),
        ("Yes, but the cat is a dog.", None),
        ("yes or no", None),
        ("I'm sorry, but I can't view images.", None),
        ("yes no", None),
    ],
)
def test_yes_or_no_may_be_the_whole_answer(raw: str, said: list[float] | None) -> None:
    """As the official question of I2EBench asks for it; a word among others is no answer."""
    assert taken(raw, YES_NO) == said
    assert taken(raw, ONE) is None, "where a number was asked for"
    assert taken(raw, YES_NO, cut=True) is None, "it had more to say"
