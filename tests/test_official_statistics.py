"""The figures of each benchmark's own script, from the files of scores that it reads."""

import json
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas  # type: ignore[import-untyped]
import pytest

from apps.edit_benchmark.official.gedit import GROUPS
from apps.edit_benchmark.official.kris import DIMENSIONS, KNOWLEDGE, SHORT
from apps.edit_benchmark.official_results import judged_by, official_table, statistic_of
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.records import Outcome, Record

RNG = np.random.default_rng(5)


def judged(pair: Pair, scores: dict[str, float] | None) -> tuple[Pair, Record]:
    outcome: Outcome = "scored" if scores else "unparsed"
    record = Record(
        pair.pair_id, pair.category, pair.instruction, pair.language, ("s.png",), "e.png",
        outcome, scores, None, 0, 0, 1, pair.intersection_exist,
    )  # fmt: skip
    return pair, record


def files_and_table(
    cases: Sequence[tuple[Pair, Record]],
) -> tuple[dict[PurePosixPath, Any], dict[str, Any]]:
    pairs, records = [pair for pair, _ in cases], [record for _, record in cases]
    statistic = statistic_of(pairs)
    assert statistic is not None
    table = official_table(pairs, records)
    assert table is not None
    return dict(statistic.score_files("mine", judged_by(statistic, pairs, records))), table


@pytest.mark.parametrize("half", [1, 2])
def test_gedit_averages_groups_to_the_last_digit(half: int) -> None:
    def drawn() -> float:
        return float(RNG.integers(0, 10 * half + 1)) / half

    cases = []
    for group in reversed(GROUPS):
        for i in range(7):
            for language in ("en", "cn"):
                pair = Pair(f"{language}_{i}", group, "x\r\ny", language=language, data_set="gedit")
                pair = replace(pair, intersection_exist=bool((i + len(group)) % 3))
                sc, pq = drawn(), drawn()
                cases.append(judged(pair, {"SC": sc, "PQ": pq, "O": math.sqrt(sc * pq)}))
    cases.append(judged(replace(cases[0][0], pair_id="unparsed"), None))
    files, table = files_and_table(cases)
    for language in ("en", "cn"):
        for subset in ("full", "intersection"):
            lines = []
            for group in GROUPS:
                text = files[
                    PurePosixPath(f"mine/qwen25vl/eval_results_new/mine_{group}_gpt_score.csv")
                ]
                rows = pandas.read_csv(StringIO(text))
                rows = rows[rows["instruction_language"] == language]
                rows = rows if subset == "full" else rows[rows["intersection_exist"]]
                overall = [
                    math.sqrt(a * b)
                    for a, b in zip(rows["sementics_score"], rows["quality_score"], strict=True)
                ]
                columns = (list(rows["sementics_score"]), list(rows["quality_score"]), overall)
                lines.append([float(np.mean(column)) for column in columns])
            ours = table[language][subset]
            assert [list(line.values()) for line in ours["groups"].values()] == lines
            assert list(ours["average"].values()) == [
                float(np.mean([line[i] for line in lines])) for i in range(3)
            ]
            assert ours["groups_scored"] == ours["of_groups"] == 11


def test_imgedit_rounds_each_mean_before_the_next() -> None:
    kinds = ["background", "adjust", "style"]
    cases = []
    for i in range(20):
        scores = {name: float(RNG.integers(1, 6)) for name in ("Compliance", "Natural", "Detail")}
        pair = Pair(str(i), kinds[i % 3], given_id=str(i), data_set="imgedit")
        cases.append(judged(pair, {**scores, "O": 3.33}))
    cases.append(judged(replace(cases[0][0], pair_id="u", given_id="u"), None))
    files, table = files_and_table(cases)
    answers = json.loads(files[PurePosixPath("mine/result.json")])
    means = {}
    for key, text in answers.items():
        numbers = [int(line.split(": ")[1]) for line in text.splitlines()]
        means[key] = round(sum(numbers) / len(numbers), 2)
    by_kind: dict[str, list[float]] = {}
    for key, mean in means.items():
        by_kind.setdefault(kinds[int(key) % 3], []).append(mean)
    rounded = {k: round(sum(found) / len(found), 2) for k, found in by_kind.items()}
    assert table["types"] == rounded and table["scored"] == 20
    assert table["average"] == round(sum(means.values()) / 20, 2)


def test_kris_counts_every_rating_once_from_0_to_100() -> None:
    cases = []
    for dimension, categories in DIMENSIONS.items():
        for category in categories:
            for i in range(3):
                pair = Pair(str(i), category, "x", given_id=str(i), data_set="kris")
                scores = {n: float(RNG.integers(1, 6)) for n in SHORT if n != "knowledge_score"}
                if dimension in ("Social Science", "Natural Science", "Logical Reasoning"):
                    scores["knowledge_score"] = float(RNG.integers(1, 6))
                cases.append(judged(pair, {**scores, "O": 1.0}))
    files, table = files_and_table(cases)
    ratings: dict[str, list[int]] = {
        place.parent.name: [
            v for one in json.loads(text).values() for k, v in one.items() if k in SHORT
        ]
        for place, text in files.items()
    }

    def mean(names: Sequence[str]) -> float:
        values = [(float(v) - 1) * 25 for name in names for v in ratings[name]]
        return sum(values) / len(values)

    for dimension, categories in DIMENSIONS.items():
        assert table["dimensions"][dimension]["AVG"] == mean(categories)
        assert ("KP" in table["dimensions"][dimension]) == (len(ratings[categories[0]]) == 12)
    for kind, members in KNOWLEDGE.items():
        assert table["knowledge"][kind] == mean([c for m in members for c in DIMENSIONS[m]])
    assert table["overall"] == mean([c for members in DIMENSIONS.values() for c in members])


@pytest.mark.parametrize("some_are_free", [False, True])
def test_rise_weighs_ratings_and_counts_faultless_edits(some_are_free: bool) -> None:
    categories = [
        "temporal_reasoning",
        "causal_reasoning",
        "spatial_reasoning",
        "logical_reasoning",
    ]
    cases = []
    for i in range(40):
        category = categories[i % 4]
        free = some_are_free and i % 8 == 1
        more: dict[str, Any] = {"subtask": f"task {i % 3}"}
        more |= {"consistency_free": True} if free else {}
        pair = Pair(str(i), category, given_id=f"{category}_{i}", data_set="rise", metadata=more)
        names = ["Reasoning", *([] if free else ["ApprConsistency"])]
        names += [] if category == "logical_reasoning" else ["VisualPlausibility"]
        ends = [1, 5] if category == "logical_reasoning" else [1, 4, 5, 5, 5]
        cases.append(judged(pair, {name: float(RNG.choice(ends)) for name in names}))
    lost = cases[3][0].given_id
    cases[3] = judged(cases[3][0], None)
    files, table = files_and_table(cases)
    answers = pickle.loads(files[PurePosixPath("outputs/mine/mine.pkl")])
    assert lost not in answers
    own = rises_own(cases, answers)
    for name, part in {"Overall": own, **dict(iter(own.groupby("part")))}.items():
        line = table["scores"][name]
        assert line["score"] == part["score"].mean()
        assert line["percent"] == 25 * (part["score"].mean() - 1)
        assert line["accuracy"] == part["complete"].mean()
        for rating in ("Reasoning", "ApprConsistency", "VisualPlausibility"):
            mean = table["ratings"][rating][name]["score"]
            assert mean is None or mean == part[rating].mean()
    for name, part in own.groupby("subtask"):
        assert table["subtasks"][name]["score"] == pytest.approx(part["score"].mean(), rel=1e-12)
        assert table["subtasks"][name]["accuracy"] == pytest.approx(part["complete"].mean())


def rises_own(cases: Sequence[tuple[Pair, Record]], answers: dict[str, Any]) -> pandas.DataFrame:
    """Scores of a table as RISEBench's script makes it of the answers."""
    rows = []
    for pair, _ in cases:
        said = answers.get(str(pair.given_id), {})
        numbers = {k: int(re.findall(r"\d+", v)[0]) for k, v in said.items() if v is not None}
        if pair.category == "logical_reasoning":
            numbers = {name: 4 * min(number, 1) + 1 for name, number in numbers.items()}
        row: dict[str, Any] = {"category": pair.category, **pair.metadata}
        row["part"] = pair.category.partition("_")[0].capitalize()
        row |= {
            "Reasoning": numbers.get("judge2"),
            "ApprConsistency": numbers.get("judge1"),
            "VisualPlausibility": numbers.get("judge3"),
        }
        rows.append(row)
    table = pandas.DataFrame(rows)

    def score(row: Any) -> float:
        if row["category"] == "logical_reasoning":
            value = 0.3 * row["ApprConsistency"] + 0.7 * row["Reasoning"]
        elif row.get("consistency_free"):
            value = 0.2 * row["VisualPlausibility"] + 0.8 * row["Reasoning"]
        else:
            value = 0.3 * row["ApprConsistency"] + 0.5 * row["Reasoning"]
            value += 0.2 * row["VisualPlausibility"]
        return max(value * 0.5, 1.0) if row["Reasoning"] == 1 else float(value)

    def complete(row: Any) -> int:
        names = ["ApprConsistency", "Reasoning"]
        names += [] if row["category"] == "logical_reasoning" else ["VisualPlausibility"]
        return int(all(row[name] == 5 for name in names))

    table["score"], table["complete"] = table.apply(score, axis=1), table.apply(complete, axis=1)
    return table


def test_another_judges_scores_are_no_official_figures() -> None:
    cases = [judged(Pair("1", "biology", data_set="kris"), {"SC": 8.0, "PQ": 7.0, "O": 7.5})]
    pairs, records = [pair for pair, _ in cases], [record for _, record in cases]
    table = official_table(pairs, records)
    assert table is not None and table.keys() == {"script", "not_computed"}
    assert "consistency_score" in table["not_computed"] and "SC, PQ, O" in table["not_computed"]
    assert official_table([replace(pairs[0], data_set="imagefolder")], records) is None
