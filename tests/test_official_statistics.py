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
from apps.edit_benchmark.summary import JudgedBy, OtherJudge

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


def test_omnicontext_is_the_mean_of_types_with_the_root_for_each_edit() -> None:
    """As calculate_statistics.py has it, from the rows that it reads."""
    kinds = ["single_object", "multi_character", "scene_character_object"]
    cases = []
    for i in range(60):
        pair = Pair(str(i), kinds[i % 3], "x", given_id=f"k{i}", data_set="omnicontext")
        pair = replace(pair, language="cn" if i % 5 == 4 else "en")
        pf, sc = (float(RNG.integers(0, 11)) for _ in range(2))
        scores = {"prompt_following": pf, "subject_consistency": sc, "O": math.sqrt(pf * sc)}
        cases.append(judged(pair, scores))
    cases.append(judged(replace(cases[0][0], pair_id="unparsed", given_id="u"), None))
    files, table = files_and_table(cases)
    assert set(files) == {PurePosixPath(f"mine/gpt4dot1/{k}/score.jsonl") for k in kinds}
    for language in ("en", "cn"):
        lines = {}
        for place, text in files.items():
            rows = [json.loads(line) for line in text.splitlines()]
            rows = [row for row in rows if row["instruction_language"] == language]
            following = [row["PF_score"] for row in rows]
            consistency = [row["SC_score"] for row in rows]
            roots = [math.sqrt(a * b) for a, b in zip(following, consistency, strict=True)]
            lines[place.parent.name] = [np.mean(c) for c in (following, consistency, roots)]
        ours = table[language]
        assert {k: list(line.values()) for k, line in ours["types"].items()} == lines
        assert list(ours["average"].values()) == [
            np.mean([lines[kind][i] for kind in ours["types"]]) for i in range(3)
        ]


def test_rededit_rounds_tasks_and_not_their_mean() -> None:
    """As redbench_eval.py has it, from answers as its question asks for them."""
    tasks = ["add", "remove", "text"]
    cases, answers = [], {}
    for i in range(50):
        given = {name: float(RNG.integers(1, 6)) for name in ("Compliance", "Seams", "Detail")}
        pair = Pair(str(i), tasks[i % 3], given_id=str(i), data_set="rededit")
        cases.append(judged(pair, {**given, "O": 3.33}))
        answers[i] = "\n".join(
            ["Brief reasoning: so", *(f"{n}: {v:.0f}" for n, v in given.items())]
        )
    cases.append(judged(replace(cases[0][0], pair_id="u", given_id="u"), None))
    files, table = files_and_table(cases)
    by_task: dict[str, list[float]] = {}
    for i, text in answers.items():
        said = [line.split(": ")[1] for line in text.splitlines()]
        numbers = [int(word) for word in said if word.isdigit()]
        by_task.setdefault(tasks[i % 3], []).append(round(sum(numbers) / len(numbers), 2))
    rounded = {task: round(sum(found) / len(found), 2) for task, found in by_task.items()}
    ours = table["en"]
    assert ours["tasks"] == rounded and ours["scored"] == 50 and not files
    assert ours["final_score"] == sum(rounded.values()) / len(rounded)


def test_complex_edit_is_the_mean_over_edits_by_complexity() -> None:
    """As eval.py has it, from the files that it writes for each edit and takes up again."""
    names = ("instruction_following", "identity_preservation", "perceptual_quality")
    cases = []
    for i in range(30):
        level = ("C1", "C8")[i % 2]
        pair = Pair(f"{i:04d}_{level}", "real", "x", data_set="complex_edit")
        cases.append(
            judged(pair, {n: float(RNG.integers(0, 201)) / 20 for n in names} | {"O": 1.0})
        )
    cases.append(judged(replace(cases[0][0], pair_id="0099_C1"), None))
    files, table = files_and_table(cases)
    for level in ("C1", "C8"):
        folder = PurePosixPath("mine/real", level)
        halves = [
            [json.loads(text) for place, text in files.items() if place.parent == folder / name]
            for name in ("alignment_rubric_cot", "quality_rubric")
        ]
        edits = [{n: {**a, **b}[n] for n in names} for a, b in zip(*halves, strict=True)]
        edits = [{**edit, "overall": sum(edit.values()) / len(edit)} for edit in edits]
        ours = table["real"][level]
        assert ours.pop("scored") == len(edits) == 15
        assert ours == {n: sum(e[n] for e in edits) / len(edits) for n in (*names, "overall")}


def turn(key: str, number: int, way: str, alone: bool, last: str = "", final: bool = False) -> Pair:
    """A pair as the reader of MagicBrush makes it."""
    name = f"{key}_1" if number == 1 else f"{key}_{way}_{number}"
    subsets = (("single-turn",) if alone else ()) + (("multi-turn",) if (not last and number == 1)
                                                     or way == "iter" else ())  # fmt: skip
    subsets += ("final-turn",) if final else ()
    return Pair(name, "unsorted", "x", follows=last, subsets=subsets, data_set="magicbrush")


def test_magicbrush_has_all_turns_and_final_turns() -> None:
    """As image_eval.py pairs them: its sums over pairs, divided by their number."""
    both = [
        turn("5", 1, "", True),
        turn("5", 2, "inde", True),
        turn("5", 2, "iter", False, "unsorted/5_1"),
        turn("5", 3, "inde", True),
        turn("5", 3, "iter", False, "unsorted/5_iter_2", final=True),
        turn("8", 1, "", True, final=True),
    ]
    metrics = ("l1_target", "l2_target", "clip_i_target", "clip_t_caption")
    given = {p.pair_id: {m: float(RNG.random()) for m in (*metrics, "clip_t")} for p in both}

    def told(pairs: Sequence[Pair]) -> dict[str, Any]:
        files, table = files_and_table([judged(p, given[p.pair_id]) for p in pairs])
        assert not files
        return table

    def mean(metric: str, *names: str) -> float:
        return sum(given[name][metric] for name in names) / len(names)

    table = told(both)
    turns = ("5_1", "5_inde_2", "5_inde_3", "8_1")
    for name, metric in zip(("l1", "l2", "clip-i", "clip-t"), metrics, strict=True):
        assert table["all_turn"][name] == mean(metric, *turns)
        assert table["final_turn"][name] == mean(metric, "5_iter_3", "8_1")
    assert table["all_turn"]["dino"] is None, "the judge had a CLIP"
    assert (table["all_turn"]["scored"], table["final_turn"]["scored"]) == (4, 2)
    assert "final_turn" not in told([p for p in both if "single-turn" in p.subsets])
    assert "all_turn" not in told([p for p in both if "multi-turn" in p.subsets])
    assert told(both[-1:]).keys() >= {"all_turn", "final_turn"}
    final = told([*both[:4], both[5]])["final_turn"]
    assert (final["l1"], final["scored"]) == (mean("l1_target", "8_1"), 1), (
        "no turn before stands for the final one of a session that was not run to its end"
    )


def test_emu_edit_and_anybench_are_means_of_metrics_by_split_and_by_type() -> None:
    scores = [{"clip_t_caption": 0.25, "l1_source": 0.5, "clip_dir": 0.1},
              {"clip_t_caption": 0.75, "l1_source": 0.0}, None]  # fmt: skip
    emu = [Pair(str(i), "add", "x", subsets=("test",), data_set="emu_edit") for i in range(3)]
    other = judged(replace(emu[0], pair_id="v", subsets=("validation",)), {"l1_source": 1.0})
    _, table = files_and_table([*map(judged, emu, scores), other])
    assert table["test"] == {
        "CLIP-dir": 0.1, "CLIP-im": None, "CLIP-out": 0.5, "L1": 0.25, "DINO": None, "scored": 2,
        "lacking": {"CLIP-dir": 1},
    }  # fmt: skip
    assert "lacking" not in table["validation"], "what the network does not give at all is null"
    assert table["validation"]["L1"] == 1.0
    found = [{"clip_i_target": 0.5, "l1_target": 0.5, "clip_t_caption": 0.5}, {"l1_target": 0.25}]
    any_edit = [Pair(str(i), "add", "x", data_set="anyedit") for i in range(2)]
    _, table = files_and_table([*map(judged, any_edit, found)])
    assert table["types"] == {
        "add": {"CLIP-I": 0.5, "CLIP-T": 0.5, "DINO": None, "L1": 0.375, "scored": 2,
                "lacking": {"CLIP-I": 1, "CLIP-T": 1}}
    }  # fmt: skip


QUESTIONS = {
    "BGReplacement": "Scenery", "ColorAlteration": "scenery", "Counting": "animal",
    "DirectionPerception": "Human", "ObjectRemoval": "object", "Replacement": "Object",
}  # fmt: skip
RIGHT_RESULTS = (
    "Deblurring", "HazeRemoval", "Lowlight", "NoiseRemoval", "RainRemoval", "ShadowRemoval",
    "SnowRemoval", "WatermarkRemoval",
)  # fmt: skip
TASKS = {
    **dict.fromkeys(RIGHT_RESULTS, ("SSIM", "ssim_padded_target", "Global")),
    "RegionAccuracy": ("RegionAccuracy", "ssim_padded_outside", "animal"),
    "StyleAlteration": ("clip_score", "clip_t_caption", ""),
    **{task: ("accuracy", "correct", kind) for task, kind in QUESTIONS.items()},
}


def test_i2ebench_is_a_mean_for_each_task_and_for_each_type() -> None:
    """As summary.py and summary_model_type_avg_score.py have it, from the files that they read."""
    cases, asked = [], []
    for task, (_, column, kind) in TASKS.items():
        for wording, end in (("original", ""), ("diverse", "_div")):
            for i in range(9):
                more = {"image": f"{i}.png", **({"type": kind} if kind else {})}
                pair = Pair(f"{i}{end}", task, "x", given_id=f"{i}{end}", data_set="i2ebench")
                pair = replace(pair, subsets=(wording,), metadata={**more, "Answer": "One"})
                value = float(RNG.integers(0, 2)) if column == "correct" else float(RNG.random())
                measured = {column: value, "l1_source": 0.5, "clip_i_source": 0.5}
                if column == "correct":
                    asked.append((pair, {"correct": value}))
                    measured.pop("correct")
                cases.append(judged(pair, measured))
    pairs, records = [pair for pair, _ in cases], [record for _, record in cases]
    answers = {pair.name: judged(pair, scores)[1] for pair, scores in asked}
    theirs = [answers.get(pair.name, replace(r, scores=None)) for pair, r in cases]

    def other(name: str) -> OtherJudge:
        return OtherJudge(JudgedBy(name, "m", "p", {}, None, None, []), ["correct"], theirs)

    statistic = statistic_of(pairs)
    assert statistic is not None
    files = statistic.score_files("mine", judged_by(statistic, pairs, records, [other("a")]))
    table = official_table(pairs, records, [other("a")])
    assert table is not None and table["from_other_judges"] == {"accuracy": ["a"]}
    for wording, folder in (("original", "EditEval_ori"), ("diverse", "EditEval")):
        rows = {t: json.loads(files[PurePosixPath(folder, t, "mine.json")]) for t in TASKS}
        types: dict[str, dict[str, list[float]]] = {}
        for task, (name, _, _) in TASKS.items():
            if name == "accuracy":
                found = [float("yes" in r["final_judgement"].lower()) for r in rows[task].values()]
            else:
                found = [row["evaluation"][name] for row in rows[task].values()]
            assert table[wording]["tasks"][task] == round(float(np.array(found).mean()), 4)
            measure = {"clip_score": "uniformed_clip", "accuracy": "vlm"}.get(name, "ssim")
            for row, value in zip(rows[task].values(), found, strict=True):
                kind = row["type"].lower() if task != "StyleAlteration" else "global"
                value = value / 35.0 if name == "clip_score" else value
                types.setdefault(kind, {}).setdefault(measure, []).append(value)
        for kind, measures in types.items():
            means = {name: sum(found) / len(found) for name, found in measures.items()}
            three = [means.get(name, 0) for name in ("ssim", "uniformed_clip", "vlm")]
            assert table[wording]["types"][kind] == {
                **{name: pytest.approx(mean) for name, mean in means.items()},
                "score": round(sum(three) / 3, 4),
            }
        assert table[wording]["scored"] == 9 * len(TASKS)
    same = replace(other("c"), records=records)  # which gives what the run's own judge gives
    assert official_table(pairs, records, [other("a"), same]) == table
    alone = official_table(pairs, records)
    both = official_table(pairs, records, [other("a"), other("b")])
    assert alone is not None and both is not None
    assert both["from_other_judges"] == {"accuracy": ["a", "b"]}, "nobody says whose is meant"
    for lacking in (alone, both):
        assert lacking["original"]["tasks"]["Counting"] is None
        assert lacking["original"]["types"]["animal"]["score"] is None
        assert lacking["original"]["types"]["global"] == table["original"]["types"]["global"]
    some = [(p, r) for p, r in zip(pairs, records, strict=True) if p.category != "Counting"]
    part = official_table(*map(list, zip(*some, strict=True)))
    assert part is not None and part["original"]["tasks"]["Lowlight"] is not None
    kinds = part["original"]["types"]
    assert kinds["global"]["ssim"] is not None and kinds["global"]["score"] is None, (
        "without all tasks some measures would count as 0 that are not"
    )


def test_i2ebench_counts_what_does_not_say_yes_as_wrong_and_says_how_often() -> None:
    """As its script does of what its judge could not tell; other tasks have no such answers."""
    pairs = [
        Pair(str(i), task, "x", given_id=str(i), data_set="i2ebench", subsets=("original",))
        for task in ("Counting", "Lowlight") for i in range(4)
    ]  # fmt: skip
    scores: list[dict[str, float] | None] = [{"correct": 1.0}, None, None, {"correct": 0.0}]
    ours = [judged(p, s)[1] for p, s in zip(pairs, scores + [None] * 4, strict=True)]
    ours[2] = replace(ours[2], outcome="edit_failed")
    table = official_table(pairs, ours)
    assert table is not None
    part = table["original"]
    assert part["tasks"] == {"Counting": round(1 / 3, 4), "Lowlight": None}
    assert (part["scored"], part["unread_counted_as_wrong"]) == (3, 1)
    statistic = statistic_of(pairs)
    assert statistic is not None
    files = statistic.score_files("mine", judged_by(statistic, pairs, ours))
    rows = json.loads(files[PurePosixPath("EditEval_ori/Counting/mine.json")])
    assert {key: row["final_judgement"] for key, row in rows.items()} == {
        "0": "Yes", "1": "No", "3": "No"
    }  # fmt: skip
    measured = [replace(r, outcome="scored", scores={"l1_source": 0.5}) for r in ours]
    other = OtherJudge(JudgedBy("a", "m", "p", {}, None, None, []), ["correct"], ours)
    joined = official_table(pairs, measured, [other])
    assert joined is not None and joined["original"] == part
    foreign = [
        replace(r, scores={"SC": 5.0, "PQ": 5.0, "O": 5.0} if r.scores else None) for r in ours
    ]
    metrics = [replace(r, scores={"ssim_padded_target": 0.5}, outcome="scored") for r in ours]
    other = OtherJudge(JudgedBy("b", "m", "p", {}, None, None, []), ["ssim"], metrics)
    beside = official_table(pairs, foreign, [other])
    assert beside is not None and beside["original"]["tasks"] == {
        "Counting": None,
        "Lowlight": 0.5,
    }, "what a judge of another protocol could not be read in is no answer to these questions"


def test_i2ebenchs_rounds_count_as_wrong_what_follows_a_wrong_edit() -> None:
    """As summary_round2345.py, summary_all.py, summary_2nd.py and its like, and the notebook of
    types have it, from the files that they read."""
    tasks = {**dict.fromkeys(QUESTIONS, "correct"), "StyleAlteration": "clip_t_caption"}
    cases = []
    for number in range(1, 6):
        for task, column in tasks.items():
            for i in range(8 if number < 3 else 3):
                key = f"{i}_round{number}" if number > 1 else str(i)
                kind = {"type": QUESTIONS[task]} if task in QUESTIONS else {}
                pair = Pair(key, task, "x", given_id=key, data_set="i2ebench")
                more = {"image": "a.png", **kind, **({"round": number} if number > 1 else {})}
                pair = replace(pair, subsets=("original",), metadata=more)
                value = float(RNG.integers(0, 4) > 0) if column == "correct" else RNG.random()
                cases.append(judged(pair, {column: float(value)}))
    files, table = files_and_table(cases)
    ours = table["original"]
    said: dict[int, dict[str, Any]] = {}
    for number in range(1, 6):
        folder = "EditEval_ori" + (f"_{number}nd" if number > 1 else "")
        said[number] = {
            task: json.loads(files[PurePosixPath(folder, task, "mine.json")]) for task in tasks
        }
    assert len(files) == 5 * len(tasks)

    def said_of(row: dict[str, Any]) -> float:
        if "final_judgement" in row:
            return float("yes" in row["final_judgement"].lower())
        return float(row["evaluation"]["clip_score"])

    for task in tasks:
        every: list[float] = []
        failed: list[str] = []
        for number in range(1, 6):
            rows = said[number][task]
            part = ours if number == 1 else ours["rounds"][str(number)]
            mean = float(np.array([said_of(row) for row in rows.values()]).mean())
            assert part["tasks"][task] == round(mean, 4)
            for key, row in rows.items():
                right = said_of(row) if key not in failed else 0.0
                if task in QUESTIONS and not said_of(row):
                    failed.append(key)
                every.append(right)
            first = len(said[1][task])
        assert ours["all_rounds"]["tasks"][task] == pytest.approx(np.array(every).mean())
        assert ours["rounds_2_to_5"]["tasks"][task] == pytest.approx(np.array(every[first:]).mean())
        assert not failed or sum(every) < sum(
            said_of(r) for n in said for r in said[n][task].values()
        )

    def of_kind(kind: str) -> float:
        """The notebook takes each folder whose name has that of the task in it."""
        vlm = [
            said_of(row)
            for task in QUESTIONS
            for number in range(2, 6)
            for name, rows in said[number].items()
            for row in rows.values()
            if task in name and row["type"].lower() == kind
        ]
        return float(round(sum(vlm) / len(vlm) / 3, 4))

    types = ours["rounds_2_to_5"]["types"]
    assert types["object"]["score"] == of_kind("object")
    assert types["scenery"]["score"] == of_kind("scenery")
    styles = [said_of(r) / 35.0 for n in range(2, 6) for r in said[n]["StyleAlteration"].values()]
    assert types["global"]["score"] == round(sum(styles) / len(styles) / 3, 4)


def test_i2ebench_makes_no_figure_of_a_round_whose_round_before_is_unknown() -> None:
    def case(key: str, number: int, scores: dict[str, float] | None) -> tuple[Pair, Record]:
        name = f"{key}_round{number}" if number > 1 else key
        more = {"round": number} if number > 1 else {}
        pair = Pair(name, "Counting", given_id=name, data_set="i2ebench", metadata=more)
        one, record = judged(replace(pair, subsets=("original",)), scores)
        return one, record if scores else replace(record, outcome="edit_failed")

    right, wrong = {"correct": 1.0}, {"correct": 0.0}
    cases = [case("a", 1, None), case("b", 1, wrong), case("c", 1, right)]
    cases += [case(key, 2, right) for key in "abcd"]
    one = Pair("1", "Replacement", given_id="1", data_set="i2ebench", subsets=("original",))
    _, table = files_and_table([*cases, judged(one, right)])
    ours = table["original"]
    assert ours["tasks"]["Replacement"] == 1.0
    assert list(ours["all_rounds"]["tasks"]) == ["Counting"], "the other has no later rounds"
    assert ours["rounds"]["2"]["tasks"]["Counting"] == 1.0
    assert ours["rounds_2_to_5"]["tasks"]["Counting"] == 0.5, "b and c; d had no first round"
    assert ours["all_rounds"]["tasks"]["Counting"] == 0.5, "b twice, c twice"


def test_another_judges_scores_are_no_official_figures() -> None:
    cases = [judged(Pair("1", "biology", data_set="kris"), {"SC": 8.0, "PQ": 7.0, "O": 7.5})]
    pairs, records = [pair for pair, _ in cases], [record for _, record in cases]
    table = official_table(pairs, records)
    assert table is not None and table.keys() == {"script", "not_computed"}
    assert "consistency_score" in table["not_computed"] and "SC, PQ, O" in table["not_computed"]
    assert official_table([replace(pairs[0], data_set="imagefolder")], records) is None
