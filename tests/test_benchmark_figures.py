"""What a benchmark's figures are over, and that every reader finds the same ones."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.edit_benchmark.compare import compare
from apps.edit_benchmark.comparison_table import comparison_page, print_comparison
from apps.edit_benchmark.editing import Edit, EditedBy, loras_of, settings_of
from apps.edit_benchmark.outputs import scores_csv, write_outputs
from apps.edit_benchmark.records import Outcome, Record
from apps.edit_benchmark.summary import JudgedBy, OtherJudge, Summary, summarise, to_json
from apps.edit_benchmark.table import print_summary
from core.errors import InputError

NAMES = ["SC", "PQ", "O"]
JUDGED_BY = JudgedBy("judge", "model", "hash", {}, 42)
# GEdit-Bench's groups, in the order of its scripts.
GROUPS = [
    "background_change", "color_alter", "material_alter", "motion_change", "ps_human",
    "style_change", "subject-add", "subject-remove", "subject-replace", "text_change",
    "tone_transfer",
]  # fmt: skip


def record(
    category: str,
    number: int = 0,
    scores: tuple[float, float] | None = (8.0, 6.0),
    language: str = "en",
    intersection: bool | None = None,
    instruction: str = "make it blue",
    outcome: Outcome | None = None,
) -> Record:
    values = None
    if scores is not None:
        values = {"SC": scores[0], "PQ": scores[1], "O": math.sqrt(scores[0] * scores[1])}
    return Record(
        f"{language}_{number}", category, instruction, language, ("a.png",), "edits/a.png",
        outcome or ("unparsed" if values is None else "scored"), values, None, 0, 0, 42,
        intersection,
    )  # fmt: skip


def summary_of(records: Sequence[Record], **more: Any) -> Summary:
    return summarise(records, NAMES, JUDGED_BY, "editor", 100, **more)


def gedit_records() -> list[Record]:
    """Its groups in both languages, from the last to the first, some out of the intersection."""
    random = np.random.default_rng(3)
    return [
        record(
            group, i, (float(random.integers(0, 21)) / 2, float(random.integers(0, 11))),
            language, bool((i + len(group)) % 3),
        )
        for group in reversed(GROUPS) for i in range(7) for language in ("en", "cn")
    ]  # fmt: skip


# -- languages and subsets -----------------------------------------------------


def gedits_own(folder: Path, run: str, language: str) -> dict[str, list[float]]:
    """Averages of GEdit-Bench's calculate_statistics: group by group, then over the groups."""
    figures: dict[str, list[list[float]]] = {"full": [], "intersection": []}
    for group in GROUPS:
        table = pandas.read_csv(folder / f"{run}_{group}_gpt_score.csv")
        rows: dict[str, list[tuple[float, float, float]]] = {"full": [], "intersection": []}
        for _, row in table.iterrows():
            if row["instruction_language"] != language:
                continue
            consistency, quality = row["sementics_score"], row["quality_score"]
            scores = (consistency, quality, math.sqrt(consistency * quality))
            rows["full"].append(scores)
            if row["intersection_exist"]:
                rows["intersection"].append(scores)
        for subset, found in rows.items():
            figures[subset].append([float(np.mean([r[i] for r in found])) for i in range(3)])
    return {
        subset: [float(np.mean([group[i] for group in groups])) for i in range(3)]
        for subset, groups in figures.items()
    }


def test_figures_are_gedit_benchs_own_to_the_last_digit(tmp_path: Path) -> None:
    records = gedit_records()
    folder = tmp_path / "mine"
    folder.mkdir()
    write_outputs(folder, records, summary_of(records))
    written = json.loads((folder / "summary.json").read_text("utf-8"))
    parts = {(p["language"], p["subset"]): p for p in written["parts"]}
    assert set(parts) == {(la, s) for la in ("en", "cn") for s in ("full", "intersection")}
    for language in ("en", "cn"):
        for subset, own in gedits_own(folder / "gedit", "mine", language).items():
            part = parts[language, subset]
            ours = [part["overall"]["scores"][name]["mean"] for name in NAMES]
            assert ours == own, f"{language}, {subset}"
            assert part["overall"]["over"] == {"scored": 11, "of": 11}
            tables = [line for line in part["categories"] if line["category"] == "ps_human"]
            rows = [
                r.scores["O"] for r in records
                if r.scores and r.category == "ps_human" and r.language == language
                and (subset == "full" or r.intersection_exist)
            ]  # fmt: skip
            assert [t["scores"]["O"]["mean"] for t in tables] == [float(np.mean(rows))]


def test_no_figure_mixes_languages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    records = [
        *(record("sky", i, (8, 8), "en", i > 0) for i in range(2)),
        *(record("sky", i, (2, 2), "cn", i > 0) for i in range(2)),
    ]
    summary = summary_of(records)
    assert summary.overall.scores == {} and summary.overall.n == 4
    print_summary(summary, Path("out"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[3:]]
    assert [line.rsplit(" to ", 1)[0] for line in lines[:6]] == [
        "sky en 2 2 0 0 8.00 8.00 8.00 8.00 0.00 8.00",
        "sky cn 2 2 0 0 2.00 2.00 2.00 2.00 0.00 2.00",
        "overall en 2 2 0 0 8.00 8.00 8.00 8.00 - 8.00",
        "overall en, intersection 1 1 0 0 8.00 8.00 8.00 8.00 - -",
        "overall cn 2 2 0 0 2.00 2.00 2.00 2.00 - 2.00",
        "overall cn, intersection 1 1 0 0 2.00 2.00 2.00 2.00 - -",
    ]


def test_data_of_one_language_without_subsets_has_one_overall_line() -> None:
    summary = summary_of([record("sky", i) for i in range(3)])
    assert summary.parts == [] and summary.overalls == [summary.overall]
    assert summary.categories[0].language is None


def test_two_languages_without_subsets_are_two_lines() -> None:
    summary = summary_of([record("sky", language="en"), record("sky", language="cn")])
    assert [(line.language, line.subset) for line in summary.overalls] == [
        ("en", "full"), ("cn", "full"),
    ]  # fmt: skip


def test_what_cannot_be_read_is_counted_and_is_of_no_language() -> None:
    broken = record("unsorted", 9, None, "", outcome="edit_failed")
    summary = summary_of([record("sky", 0, (8, 6), "cn", True), broken])
    assert {part.language for part in summary.parts} == {"cn"}
    assert summary.overall.failed == 1 and summary.overall.scores["SC"].mean == 8
    assert [line.category for line in summary.categories] == ["sky", "unsorted"]


def test_a_category_without_a_score_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(c, 0, None if c == "c" else (8, 6)) for c in "abcde"]
    summary = summary_of(records)
    write_outputs(tmp_path, records, summary)
    written = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert written["overall"]["over"] == {"scored": 4, "of": 5}
    print_summary(summary, Path("out"))
    out = capsys.readouterr().out
    assert out.count(" over 4 of 5") == 1 and out.count(" of 5") == 1
    print_summary(summary_of(records[:2]), Path("out"))
    assert " over 2 of " not in capsys.readouterr().out


def test_a_group_without_pairs_in_the_intersection_is_marked_there() -> None:
    records = [record("a", 0, (8, 6), "en", True), record("b", 0, (4, 4), "en", False)]
    full, intersection = summary_of(records).overalls
    assert (full.over.scored, full.over.of) == (2, 2)
    assert (intersection.over.scored, intersection.over.of) == (1, 2)


def results(folder: Path, records: Sequence[Record], **more: Any) -> Path:
    folder.mkdir()
    write_outputs(folder, records, summary_of(records, **more))
    return folder


def test_a_comparison_mixes_no_languages(tmp_path: Path) -> None:
    before = [
        record("sky", i, (4, 4), language, i > 0) for i in range(3) for language in ("en", "cn")
    ]
    after = [
        record("sky", i, (8, 8) if language == "en" else (3, 3), language, i > 0)
        for i in range(3) for language in ("en", "cn")
    ]  # fmt: skip
    a, b = results(tmp_path / "a", before), results(tmp_path / "b", after)
    lines = compare([a, b], "O", 100).lines
    assert [
        (n.category, n.language, n.subset, n.pairs, n.differences[0].interval.mean) for n in lines
    ] == [
        ("sky", "en", None, 3, 4.0),
        ("sky", "cn", None, 3, -1.0),
        ("overall", "en", "full", 3, 4.0),
        ("overall", "en", "intersection", 2, 4.0),
        ("overall", "cn", "full", 3, -1.0),
        ("overall", "cn", "intersection", 2, -1.0),
    ]


def test_results_of_earlier_versions_are_compared(tmp_path: Path) -> None:
    """They marked every pair of any data, and did not say how edits were made."""
    a = results(tmp_path / "a", [record("sky", i, (4, 4), intersection=True) for i in range(3)])
    summary = json.loads((a / "summary.json").read_text("utf-8"))
    for new in ("edited_by", "parts"):
        del summary[new]
    (a / "summary.json").write_text(json.dumps(summary), "utf-8")
    comparison = compare([a, a], "O", 100)
    assert [(line.category, line.language) for line in comparison.lines] == [
        ("sky", None), ("overall", None),
    ]  # fmt: skip
    assert comparison.runs[0].edited_by == "editor"


# -- scores.csv ----------------------------------------------------------------

TEXTS = [
    "a\rb", "a\r\nb", "a\nb", "\r", "a\rb,c", 'say "no"\r', "tab\there", "a\x0b\x0c\x1cb", "a\x85b",
    "a\u2028b", "=1+1", "+1", "@x", " blank ", "'", "\\", "颜色", "a;b", "#no comment", "\ufeffx",
    "half \ud800", "a\x00b",
]  # fmt: skip


def rows_of_csv(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [[r["instruction"], r["category"]] for r in csv.DictReader(stream)]


def rows_of_pandas(file: Path) -> list[list[str]]:
    table = pandas.read_csv(file)
    return [[r["instruction"], r["category"]] for _, r in table.iterrows()]


@pytest.mark.parametrize("read", [rows_of_csv, rows_of_pandas])
def test_whatever_an_instruction_holds_is_one_row_for_every_reader(
    tmp_path: Path, read: Callable[[Path], list[list[str]]]
) -> None:
    records = [record(text, i, instruction=text) for i, text in enumerate(TEXTS)]
    write_outputs(tmp_path, records, summary_of(records))
    right = [t.encode("utf-8", "backslashreplace").decode() for t in TEXTS]
    assert read(tmp_path / "scores.csv") == [[text, text] for text in right]
    marks = pandas.read_csv(tmp_path / "scores.csv")["intersection_exist"]
    assert marks.dtype == bool and marks.all()


def test_a_reader_that_translates_line_breaks_finds_as_many_rows(tmp_path: Path) -> None:
    """GEdit-Bench opens its tables as text."""
    (tmp_path / "scores.csv").write_bytes(
        scores_csv([record("c", i, instruction=t) for i, t in enumerate(TEXTS[:8])]).encode()
    )
    with (tmp_path / "scores.csv").open() as stream:
        table = pandas.read_csv(stream)
    assert len(table) == 8 and set(table["sementics_score"]) == {8.0}


# -- the table -----------------------------------------------------------------

LONG = "a category whose name is longer than any terminal is wide " * 4
CATEGORIES = ["sky", LONG, "颜色和材质的改变以及背景替换" * 6, "x" * 300, "🌧 rain " * 40]


def figures_in(text: str) -> list[str]:
    return [word for word in text.split() if word.replace(".", "").isdigit()]


@pytest.mark.parametrize("columns", [60, 80, 100, 200, None])
def test_names_give_way_and_figures_never(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int | None
) -> None:
    from rich.cells import cell_len

    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    else:
        monkeypatch.delenv("COLUMNS", raising=False)
    scores = [(10.0, 9.96), (4.32, 4.33), (1.23, 7.89), (0, 0), (6.78, 9.87)]
    records = [
        record(c, i, s, language, intersection=True)
        for i, (c, s) in enumerate(zip(CATEGORIES, scores, strict=True))
        for language in ("en", "cn")
    ]
    print_summary(summary_of(records), Path("out"))
    table = capsys.readouterr().out.split("\n", 2)[2]
    for consistency, quality in scores:
        for figure in (consistency, quality, math.sqrt(consistency * quality)):
            assert f" {figure:.2f}" in table
    lines = table.splitlines()
    assert max(map(cell_len, lines)) <= (columns or 100)
    assert "…" in table and not any("…" in word for word in figures_in(table))
    assert not any(c.isdigit() and after == "…" for c, after in pairwise(table))
    for line in lines:
        if line.strip() and "category" not in line:
            assert line.split()[-1] != "…"


def test_a_comparison_keeps_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    a = results(tmp_path / "a", [record(LONG, i, (4, 4)) for i in range(3)])
    b = results(tmp_path / "b", [record(LONG, i, (8, 8)) for i in range(3)])
    print_comparison(compare([a, b], "O", 100))
    shown = capsys.readouterr().out.splitlines()
    rows = shown[1:3]
    assert all("4.00  8.00  +4.00  +4.00 to +4.00" in row and len(row) <= 60 for row in rows)
    assert [row for row in shown if "edited by" in row] == ["A and B edited by: editor"]
    assert "…" in rows[0]


@settings(max_examples=25)
@given(
    st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=4, unique=True),
    st.integers(40, 120),
)
def test_any_name_leaves_the_figures_whole(names: list[str], columns: int) -> None:
    import contextlib
    import io
    import os
    from unittest.mock import patch

    summary = summary_of([record(name, i, (7.89, 7.89)) for name in names for i in range(2)])
    out = io.StringIO()
    with patch.dict(os.environ, COLUMNS=str(columns)), contextlib.redirect_stdout(out):
        print_summary(summary, Path("out"))
    assert out.getvalue().count("7.89 to 7.89") >= len(names)


# -- how edits were made -------------------------------------------------------


def edit(steps: int, width: int = 64, **more: Any) -> Edit:
    task = {"num_inference_steps": steps, "negative_prompt": " ", "lora_strength": 1.0, **more}
    return Edit(task, {"num_inference_steps": steps, "width": width, "sampler": "Euler"})


def made(*edits: Edit) -> EditedBy:
    return EditedBy("a/model@main", "auto", 42, {}, settings_of(edits), loras_of(edits))


def test_a_summary_tells_8_steps_from_1(tmp_path: Path) -> None:
    records = [record("sky", i) for i in range(2)]
    a = results(tmp_path / "a", records, edited_by=made(edit(8), edit(8)))
    b = results(tmp_path / "b", records, edited_by=made(edit(1), edit(1)))
    written = [json.loads((f / "summary.json").read_text("utf-8"))["edited_by"] for f in (a, b)]
    assert [w["settings"]["num_inference_steps"] for w in written] == [8, 1]
    assert written[0]["model"] == "a/model@main" and written[0]["seed"] == 42
    comparison = compare([a, b], "O", 100)
    assert "num_inference_steps 8" in comparison.runs[0].edited_by
    assert "num_inference_steps 1" in comparison.runs[1].edited_by


def test_settings_that_differ_between_pairs_are_said_so() -> None:
    by = made(edit(8), edit(4), edit(30), Edit({"negative_prompt": "rain"}, {}))
    assert by.settings["num_inference_steps"] == {
        "different": 4, "lowest": 4, "highest": 30, "without": 1,
    }  # fmt: skip
    assert by.settings["negative_prompt"] == {"different": 2, "values": [" ", "rain"]}
    assert "num_inference_steps 4 to 30" in by.line and "negative_prompt of 2 kinds" in by.line


def test_loras_are_named_with_content_and_strength(capsys: pytest.CaptureFixture[str]) -> None:
    tuned = Edit({"lora_path": "/x/style.safetensors", "lora_strength": 0.8}, {}, "ab" * 32)
    by = made(edit(8), tuned, tuned)
    assert by.loras == [
        {"name": "style.safetensors", "sha256": "ab" * 32, "strength": 0.8, "edits": 2}
    ]
    stack = [{"path": "/x/fast.safetensors", "strength": 1.0}, {"path": "s.st", "strength": 0.5}]
    stacked = made(tuned, Edit({"loras": stack}, {}, None, ("cd" * 32, "ef" * 32)))
    assert [(lora["name"], lora["sha256"], lora["strength"]) for lora in stacked.loras[1:]] == [
        ("fast.safetensors", "cd" * 32, 1.0), ("s.st", "ef" * 32, 0.5),
    ]  # fmt: skip
    print_summary(summary_of([record("sky")], edited_by=by), Path("out"))
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("editor: a/model@main, ")
    assert "LoRA style.safetensors #abababab at 0.8 (2 edits)" in line and "seed 42" in line


# -- several judges ------------------------------------------------------------


def test_a_judges_settings_are_told_in_words() -> None:
    api = {
        "limit_field": "max_tokens",
        "send_seed": False,
        "picture_format": "jpeg",
        "picture_quality": 90,
        "picture_detail": None,
        "extra": {"seed": 3, "chat_template_kwargs": {"enable_thinking": False}},
    }
    settings = {"type": "openai", "temperature": 0.7, "top_k": None, "api": api, "protocol": 4}
    assert JudgedBy("mine", "gpt@there", "a1b2", settings, 1).described == (
        "mine (gpt@there, prompts a1b2, temperature 0.7, tokens limited by max_tokens, "
        "no seeds sent, pictures as jpeg, in quality 90, extra.seed 3, "
        "extra.chat_template_kwargs.enable_thinking false, protocol 4)"
    )


def test_judges_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    mine = [record("sky", i, (i, i)) for i in range(4)] + [record("sea", 9, None)]
    theirs = [record("sky", i, (9 - i, 9 - i)) for i in range(4)] + [record("sea", 9, (5, 5))]
    kept = JudgedBy("strict", "other", "prompts", {"temperature": 0.7}, 1, 8, ["torch 1"])
    summary = summary_of(mine, others=[OtherJudge(kept, NAMES, theirs)])
    own, other = json.loads(to_json(summary))["judges"]
    assert (own["judged_by"]["judge"], other["judged_by"]["judge"]) == ("judge", "strict")
    assert (own["overall"]["scores"]["O"]["mean"], other["overall"]["scored"]) == (1.5, 5)
    assert other["same_order"] == {"n": 4, "spearman": -1.0, "kendall": -1.0}
    assert summary.rank_correlations == {"strict": -1.0}
    print_summary(summary, Path("out"))
    own_table, _, beside = capsys.readouterr().out.partition("judges side by side:")
    assert "unparsed %" in own_table and " 20 " in own_table
    rows = [line.split() for line in beside.splitlines()[1:5]]
    assert " ".join(rows[0]) == "category A scored A O A 95 % B scored B O B 95 %"
    assert rows[2] == ["sea", "0", "-", "-", "1", "5.00", "-"]
    assert rows[3][:3] == ["overall", "4", "1.50"]
    assert "A: judge (model, prompts hash), seed 42, 20 % unparsed" in beside
    assert "temperature 0.7), seed 1, batches of 8, torch 1" in beside


# -- several runs --------------------------------------------------------------


def test_of_several_runs_it_is_said_which_differences_are_real(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    random = np.random.default_rng(5)
    noise = [random.normal(0, 0.3, 40) for _ in range(3)]
    better = [0.0, 0.0, 2.0]
    folders = [
        results(
            tmp_path / name,
            [
                record("sky" if i < 20 else "sea", i, (5 + more + ours[i],) * 2)
                for i in range(40 if name != "c" else 39)
            ],
        )
        for name, more, ours in zip("abc", better, noise, strict=True)
    ]
    comparison = compare(folders, "O", 2_000)
    assert comparison.without_all == 1
    [overall] = comparison.overalls
    between = {(d.earlier, d.later): d for d in overall.differences}
    assert {pair: d.is_real for pair, d in between.items()} == {
        (0, 1): False, (0, 2): True, (1, 2): True,
    }  # fmt: skip
    # Paired, by hand: the mean of two categories' mean differences on the 39 pairs of all.
    ours = [np.asarray(better[run] + noise[run]) for run in (0, 2)]
    by_hand = ((ours[1] - ours[0])[:20].mean() + (ours[1] - ours[0])[20:39].mean()) / 2
    assert between[0, 2].interval.mean == pytest.approx(by_hand)
    assert all(d.adjusted >= d.p for line in comparison.lines for d in line.differences)

    print_comparison(comparison)
    shown = " ".join(capsys.readouterr().out.split())
    assert "pairs A B C B - A 95 % C - A 95 % C - B 95 %" in shown
    assert "Holm's correction for 3 comparisons): C - A +" in shown
    assert "Not shown to be real: B - A " in shown and "1 pair without a score in all" in shown
    page = comparison_page(comparison)
    assert page.columns[:5] == ["Category", "Pairs", "A", "B", "C"] and len(page.rows[0]) == 14
    assert page.notes[0] == "A: a, B: b, C: c. Pictures are shown of A and B."


def test_a_judge_of_the_same_name_with_other_settings_keeps_its_tables(tmp_path: Path) -> None:
    greedy, drawn = (replace(JUDGED_BY, settings={"temperature": t}) for t in (0.0, 0.7))
    for by, score in ((greedy, 4.0), (drawn, 8.0), (drawn, 9.0), (greedy, 5.0)):
        records = [record("sky", i, (score, score)) for i in range(2)]
        write_outputs(tmp_path, records, summarise(records, NAMES, by, "editor", 100))
    found = {
        (data := json.loads(file.read_text("utf-8")))["judged_by"]["settings"]["temperature"]: (
            file.parent.name, data["overall"]["scores"]["O"]["mean"]
        )
        for file in tmp_path.glob("tables/*/summary.json")
    }  # fmt: skip
    assert found[0.0] == ("judge", 5.0) and found[0.7][1] == 9.0
    assert found[0.7][0].startswith("judge-")
    assert len(list(tmp_path.glob("tables/*"))) == 2
    [line] = compare([tmp_path, tmp_path], "O", 100, found[0.7][0]).overalls
    assert line.means == [9.0, 9.0]


def test_runs_are_compared_by_any_judge_that_scored_them_all(tmp_path: Path) -> None:
    """The last judge of one run is not the last one of the other."""
    folders = []
    for name in "ab":
        folders.append(results(tmp_path / name, [record("sky", i) for i in range(3)]))
    records = [record("sky", i, (1, 1)) for i in range(3)]
    strict = JudgedBy("strict", "other", "prompts", {}, 1)
    write_outputs(folders[1], records, summarise(records, NAMES, strict, "editor", 100))
    with pytest.raises(InputError, match=r"different judges cannot be compared\. --judge NAME"):
        compare(folders, "O", 100)
    [line] = compare(folders, "O", 100, "judge").overalls
    assert line.means == pytest.approx([48**0.5] * 2)
    with pytest.raises(InputError, match="no tables of the judge 'strict'; it has judge"):
        compare(folders, "O", 100, "strict")


def test_runs_are_compared_by_the_main_score_of_their_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for name, unlike in (("a", 0.5), ("b", 0.25)):
        scores = {"l1_source": 0.1, "lpips_source": unlike}
        records = [replace(record("sky", i), scores=scores) for i in range(2)]
        (tmp_path / name).mkdir()
        by = replace(JUDGED_BY, judge="lpips-vgg")
        write_outputs(tmp_path / name, records, summarise(records, list(scores), by, "e", 100))
        folders.append(tmp_path / name)
    comparison = compare(folders, None, 100)
    assert comparison.score == "lpips_source"
    assert comparison.overalls[0].means == [0.5, 0.25]
    print_comparison(comparison)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Compared by lpips_source (how unlike the pictures look, by LPIPS; 0 is the" in shown
    assert "as judged by lpips-vgg (" in shown
    with pytest.raises(
        InputError, match="--score O: no such score; the runs have l1_source, lpips"
    ):
        compare(folders, "O", 100)


def test_a_category_of_one_pair_leaves_the_overall_figure_without_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for name, score in (("a", 4), ("b", 8)):
        pairs = [record("sky", i, (score, score)) for i in range(3)]
        folders.append(results(tmp_path / name, [*pairs, record("sea", 9, (score, score))]))
    comparison = compare(folders, None, 100)
    interval = comparison.overalls[0].differences[0].interval
    assert (interval.mean, interval.low, interval.high) == (4.0, None, None)
    print_comparison(comparison)
    shown = " ".join(capsys.readouterr().out.split())
    assert "a category with a single pair has no interval, and neither has overall" in shown
    written = json.loads((folders[0] / "summary.json").read_text("utf-8"))
    assert written["overall"]["scores"]["O"]["low"] is None


def test_where_nothing_was_scored_there_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    gone = [replace(record("sky", i), outcome="score_failed", scores=None) for i in range(2)]
    print_summary(summary_of(gone), Path("out"))
    shown = capsys.readouterr().out
    assert "no pair has a score (2 failed); results.jsonl says why" in shown
    assert "category" not in shown and "95 %" not in shown
