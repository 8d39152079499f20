"""Prompt files without the instruction are refused before anything is edited."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError
from core.judge import JUDGES_DIR, Judge, load_judge
from tests.conftest import Project
from tests.edit_world import Bench, pair

JUDGE = load_benchmark_settings().judge
ASKED = 'Answer with {"score": [success, over_editing], "reasoning": "in one sentence"}'


def load(folder: Path, *texts: str) -> Judge:
    names = ["SC", "PQ"]
    calls = [{"name": n, "sees": ["edited"], "text": t} for n, t in zip(names, texts, strict=False)]
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "calls": calls}), "utf-8")
    return load_judge(JUDGE.model_copy(update={"prompts": "mine.yaml"}), folder)


@pytest.mark.parametrize("file", sorted(JUDGES_DIR.glob("*.yaml")), ids=lambda f: f.name)
def test_the_shipped_prompt_files_ask_about_what_was_to_be_done(file: Path) -> None:
    """By the instruction; I2EBench by its own question about the edit."""
    prompts = load_judge(JUDGE.model_copy(update={"prompts": file.name})).prompts
    row = {"Evaluation": "make it night"} if file.stem == "i2ebench" else {}
    told = "-" if row else "make it night"
    assert "make it night" in prompts.calls[0].question(told, row)


@pytest.mark.parametrize(
    "text",
    [
        'Do "{instruction}". {"score": [a, b]}',
        "<instruction>{instruction}</instruction> Good?",
        "[Instruction]\n{instruction}\n\nGood?",
        "{instruction} {score: 1, reasoning: how the instruction was followed}",
        '{instruction}? {"a": {"b": {}}} costs $5, 100% sure <image>',
        r"{instruction}? Answer with \boxed{score}, from $\frac{a}{b}$ and $x_{i}^{n}$",
    ],
)
def test_braces_of_an_example_stay_as_they_are(tmp_path: Path, text: str) -> None:
    question = load(tmp_path, text).prompts.calls[0].question("make it night")
    assert question == text.replace("{instruction}", "make it night")


def test_a_question_about_quality_alone_needs_no_instruction(tmp_path: Path) -> None:
    load(tmp_path, "{instruction} " + ASKED, "How good does it look? " + ASKED)


@pytest.mark.parametrize(
    "mark",
    [
        "<instruction>", "{instruct}", "{{instruction}}", "{{ instruction }}", "{Instruction}",
        "{ instruction }", "$instruction", "${instruction}", "%s", "%(instruction)s", "{source}",
        "[instruction]", "<<edit_instruction>>", "{instruction!r}", "{instruction:s}", "{指令}",
        "{instruction[0]}", "{row['instruction']}",
    ],
)  # fmt: skip
def test_a_placeholder_of_another_name_is_refused_by_name(tmp_path: Path, mark: str) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, f'The editor was asked: "{mark}". {ASKED}')
    message = str(error.value)
    assert f"mine.yaml: calls.0.text (SC): unknown placeholder {mark};" in message
    assert "{instruction}" in message.split(";")[1]
    with pytest.raises(InputError, match=r"calls\.1\.text \(PQ\)"):
        load(tmp_path, "{instruction} " + ASKED, f"How well was {mark} done? {ASKED}")


def test_all_unknown_placeholders_of_a_question_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"placeholders \{source\}, \{edited\};"):
        load(tmp_path, "{instruction}: {source}, {edited}, {source}")


@pytest.mark.parametrize(("text", "found"), [("Good?", ""), ("{}?", "{}"), ("<prompt>?", "<pro")])
def test_a_file_that_never_says_the_instruction_is_refused(
    tmp_path: Path, text: str, found: str
) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml: no text of `calls` has a place") as error:
        load(tmp_path, text, "How good does it look?")
    assert found in str(error.value)


SAYS = {"name": "reply", "sees": ["edited"], "answer": "words", "text": "What is in {key}?"}
HEARS = {"name": "right", "hears": ["reply"], "answer": "yes_no", "text": "Is {reply} a cat?"}


def two_stages(folder: Path, *calls: dict[str, Any], **settings: Any) -> Judge:
    content = {"name": "mine", "fields": ["key"], "calls": list(calls), "overall": []}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), "utf-8")
    return load_judge(JUDGE.model_copy(update={"prompts": "mine.yaml", **settings}), folder)


def test_an_answer_in_words_may_be_judged_by_a_later_question(tmp_path: Path) -> None:
    prompts = two_stages(tmp_path, SAYS, HEARS).prompts
    assert prompts.score_names == ["right"] and prompts.calls[1].sees == []
    row = {"instruction": "-", "key": "k"}
    said: dict[str, Any] = {"problem": None, "value": None, "parts": {}}
    assert prompts.scores_of(row, [said, {"problem": None, "value": 1.0}]) == {"right": 1.0}
    silent = {**said, "problem": "the answer is empty", "parts": None}
    assert prompts.scores_of(row, [silent, {"problem": None, "value": 1.0}]) is None


@pytest.mark.parametrize(
    ("calls", "settings", "said"),
    [
        ([HEARS, SAYS], {}, "right hears 'reply', which is no call before it with answer: words"),
        ([SAYS], {}, "no call gives a score"),
        ([SAYS, {**HEARS, "hears": ["right"]}], {}, "right hears 'right', which is no call before"),
        ([SAYS, {**HEARS, "hears": [], "sees": ["edited"]}], {}, "list reply under its `hears`"),
        ([{**SAYS, "text": "?"}, HEARS], {}, r"no text of `calls` has a placeholder"),
        ([{**SAYS, "name": "key"}, {**HEARS, "hears": ["key"]}], {}, "'key' is a call with answer"),
        (
            [SAYS, {**HEARS, "tokens": {"1": 1}, "prefix": "a"}],
            {"type": "vlm_logits"},
            "every call",
        ),
        (
            [{**c, "tokens": {"1": 1}, "prefix": "a"} for c in (SAYS, HEARS)],
            {"type": "vlm_logits"},
            "answer: words is for judges that answer in words, not vlm_logits",
        ),
    ],
)
def test_questions_about_answers_that_were_not_given_are_refused(
    tmp_path: Path, calls: list[dict[str, Any]], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml: .*" + said):
        two_stages(tmp_path, *calls, **settings)


def test_a_bad_prompt_file_ends_the_command_before_anything_is_edited(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(0)])
    text = (
        "name: mine\ncalls:\n  - name: SC\n    sees: [edited]\n    text: Was <instruction> done?\n"
    )
    (project.folder / "mine.yaml").write_text(text)
    run = bench.run(judge={"prompts": "mine.yaml"})
    assert run.process.returncode == 2
    assert "unknown placeholder <instruction>" in run.errors and "Traceback" not in run.errors
    assert not bench.results.exists() or bench.edits() == []
