"""Every form of data set: which pairs are read, what is wrong with a row, and what is chosen."""

import base64
import csv
import hashlib
import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from apps.edit_benchmark import embedded
from apps.edit_benchmark.command import main
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.json_rows import json_rows
from apps.edit_benchmark.options import parse_arguments
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pairs import PairSet, SeedBy, read_pairs
from apps.edit_benchmark.preferences import comparisons_of
from apps.edit_benchmark.selection import Choice
from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError
from tests import published_sets as sets
from tests.inline_backend import InlineBackend
from tests.published_sets import BLUE, BUILDERS, GREEN, RED, cell, parquet, png, written

MADE = [(form, build) for form, builds in BUILDERS.items() for build in builds]
each_form = pytest.mark.parametrize(
    ("form", "build"), MADE, ids=[build.__name__ for _, build in MADE]
)
Build = Callable[[Path], Path]


def read(data: Path, choice: Choice | None = None, **options: Any) -> list[Pair]:
    return read_pairs(data, data.parent / "work", choice, **options).pairs


def named(pairs: list[Pair]) -> dict[str, Pair]:
    return {pair.name: pair for pair in pairs}


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def sole(pairs: list[Pair]) -> Pair:
    (pair,) = pairs
    return pair


# -- recognition -----------------------------------------------------------------


@each_form
def test_a_data_set_is_taken_for_itself_and_for_no_other(
    form: str, build: Build, tmp_path: Path
) -> None:
    data = build(tmp_path / "data")
    fits = [name for name in DATA_SETS if DATA_SETS[name].fits(data)]
    assert [n for n in fits if not DATA_SETS[n].takes_any] == [form][
        : not DATA_SETS[form].takes_any
    ]
    pairs = read(data)
    assert pairs and {pair.data_set for pair in pairs} == {form}


@each_form
def test_every_pair_can_be_run(form: str, build: Build, tmp_path: Path) -> None:
    pairs = read(build(tmp_path / "data"))
    assert [pair.problem for pair in pairs] == [None] * len(pairs)
    assert all(pair.instruction and pair.language in ("en", "cn") for pair in pairs)
    assert all(Path(source).suffix for pair in pairs for source in pair.source_images)
    assert all((Path(s).is_file()) for p in pairs if "200" not in p.name for s in p.source_images)
    assert all(pair.source_images for pair in pairs if not pair.follows)
    assert all(json.dumps(pair.metadata, allow_nan=False) for pair in pairs)


# -- GEdit-Bench -----------------------------------------------------------------


@pytest.mark.parametrize("build", BUILDERS["gedit"])
def test_gedit_is_the_same_pairs_in_each_of_its_forms(build: Build, tmp_path: Path) -> None:
    pairs = named(read(build(tmp_path / "data")))
    assert [*pairs] == ["background_change/en_aa01", "background_change/cn_aa01",
                        "text_change/en_bb02"]  # fmt: skip
    assert [pair.intersection_exist for pair in pairs.values()] == [True, True, False]
    assert pairs["background_change/cn_aa01"].instruction == "变成夜晚"
    assert pairs["text_change/en_bb02"].metadata == {"key": "bb02"}
    # The same seeds, too, in whichever form and part of it a pair is met.
    seeds = {name: pair.seed_offset for name, pair in pairs.items()}
    part = read(tmp_path / "data", Choice(["en"], [["intersection"]]))
    assert {pair.name: pair.seed_offset for pair in part} == {
        "background_change/en_aa01": seeds["background_change/en_aa01"]
    }
    assert seeds["background_change/en_aa01"] == int.from_bytes(
        hashlib.sha256(b"background_change/en_aa01").digest()[:4], "big"
    )


def test_languages_that_share_a_picture_share_its_file(tmp_path: Path) -> None:
    en, cn, other = read(sets.gedit_parquet(tmp_path / "data"))
    assert en.source_images == cn.source_images and content(en.source_images[0]) == RED
    assert content(other.source_images[0]) == BLUE
    pictures = list((tmp_path / "work").glob("*.img"))
    assert len(pictures) == 2, "input_image_raw is not needed, and not written"


def test_gedits_pictures_without_instructions_are_refused_with_a_way_out(tmp_path: Path) -> None:
    data = sets.gedit_script(tmp_path / "data")
    (data / "data" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"no instructions\. To score the edits in it, give GEdit"):
        read(data)


# -- suites and turns ------------------------------------------------------------


def test_imgedits_suites(tmp_path: Path) -> None:
    data = sets.imgedit(tmp_path / "data")
    assert [pair.name for pair in read(data)] == ["background/11", "adjust/12"]
    alone = read(data / "singleturn" / "singleturn.json")
    assert [pair.name for pair in alone] == ["background/11", "adjust/12"]
    first, second, third = read(data, Choice(subsets=[["multi-turn"]]))
    assert first.name == "content_memory/1_turn1"
    assert (second.follows, third.follows) == (first.name, second.name)
    assert first.source_images and not second.source_images
    hard = sole(read(data, Choice(subsets=[["uge"]])))
    place = "hard/original_images/3.jpg"
    assert hard.source_images[0].endswith(place), "found in the folder beside the table"
    assert sole(read(data / "hard")).name == hard.name == "uge/1"


@pytest.mark.parametrize("build", BUILDERS["magicbrush"])
def test_magicbrushs_sessions_are_run_in_both_ways(build: Build, tmp_path: Path) -> None:
    data = build(tmp_path / "data")
    single = [pair for pair in read(data) if "/100" in pair.name]
    assert [pair.pair_id for pair in single][:2] == ["100_1", "100_inde_2"]
    assert all(pair.source_images and pair.target_images and pair.mask for pair in single)
    multi = named(read(data, Choice(subsets=[["multi-turn"], ["dev"]])))
    assert [*multi][:2] == ["unsorted/100_1", "unsorted/100_iter_2"]
    assert multi["unsorted/100_iter_2"].follows == "unsorted/100_1"
    assert multi["unsorted/100_iter_2"].target_images and multi["unsorted/100_iter_2"].mask
    assert not any("inde" in name for name in multi)
    final = read(data, Choice(subsets=[["multi-turn"], ["final-turn"]]))
    assert [pair.name for pair in final] == [*multi], "with all turns before them"
    last = [pair.pair_id for pair in multi.values() if "final-turn" in pair.subsets]
    assert last == (["100_iter_3", "200_1"] if build is sets.magicbrush_disk else ["100_iter_2"])
    if build is sets.magicbrush_disk:  # a table has none
        captions = [pair.metadata.get("output_caption") for pair in multi.values()]
        assert captions == ["caption 1", "caption 2", "caption 3", None]


def test_a_session_of_magicbrush_may_go_on_in_the_next_part_of_its_table(tmp_path: Path) -> None:
    """Its splits are published in up to 51 parts, which are cut between any two rows."""
    rows = [
        {"img_id": key, "turn_index": n, "source_img": cell(RED), "mask_img": cell(BLUE),
         "instruction": f"turn {n}", "target_img": cell(GREEN)}
        for key, n in (("7", 1), ("7", 2), ("7", 3), ("8", 1))
    ]  # fmt: skip
    for split, cut in (("dev", 2), ("train", 4)):
        parts = [rows[:cut], rows[cut:]] if split == "dev" else [rows]
        for number, part in enumerate(parts):
            name = f"{split}-{number:05d}-of-{len(parts):05d}-1a2b3c4d5e6f7a8b.parquet"
            parquet(tmp_path / "data" / "data" / name, part)
    for split in ("dev", "train"):
        pairs = read(tmp_path / "data", Choice(subsets=[["multi-turn"], [split]]))
        assert [p.pair_id.partition("_0")[0] for p in pairs] == [
            "7_1",
            "7_iter_2",
            "7_iter_3",
            "8_1",
        ]
        assert [bool(p.follows) for p in pairs] == [False, True, True, False]
        assert ["final-turn" in p.subsets for p in pairs] == [False, False, True, True]


def test_complex_edits_rows_are_counted_over_all_parts_of_a_split(tmp_path: Path) -> None:
    """Its scorer knows an edit by its row's place in the split."""
    rows = sets.complex_rows()
    for number in range(2):
        for split in ("test_real", "test_syn"):
            parquet(tmp_path / "data" / f"{split}-{number:05d}-of-00002.parquet", rows)
    names = [p.name for p in read(tmp_path / "data")]
    assert sorted(names) == [f"{s}/{n:04d}_C2" for s in ("real", "syn") for n in range(4)]


def test_rows_without_a_name_are_counted_over_all_parts_of_a_split(tmp_path: Path) -> None:
    """So that an id says which row it is, and does not hang on other splits."""
    rows = [{"image": cell(RED), "instruction": f"make it {n}"} for n in range(2)]
    for number in range(2):
        for split in ("test", "train"):
            parquet(tmp_path / "data" / f"{split}-{number:05d}-of-00002.parquet", rows)
    pairs = read(tmp_path / "data", Choice(subsets=[["test"]]))
    assert [pair.pair_id for pair in pairs] == [f"pair_{n:04d}" for n in range(4)]


def test_a_turn_whose_turn_before_cannot_be_read_fails(tmp_path: Path) -> None:
    data = sets.magicbrush_disk(tmp_path / "data")
    file = data / "dev" / "edit_sessions.json"
    sessions = json.loads(file.read_text())
    sessions["100"][1]["instruction"] = ""
    sessions["200"] = "nothing"
    written(file, sessions)
    pairs = named(read(data, Choice(subsets=[["dev"]])))
    assert "edit_sessions.json row 100, turn 2: instruction: is missing" in str(
        pairs["unsorted/100_inde_2"].problem
    )
    assert any("row 200: expected a list of turns" in str(p.problem) for p in pairs.values())
    assert pairs["unsorted/100_1"].problem is None is pairs["unsorted/100_inde_3"].problem
    for way, failed in (("single-turn", ["100_inde_2"]), ("multi-turn", ["100_iter_2"])):
        chosen = read(data, Choice(subsets=[[way]]))
        assert [p.pair_id for p in chosen if p.problem and "turn 2" in str(p.problem)] == failed
        assert any("row 200" in str(p.problem) for p in chosen)
    multi = named(read(data, Choice(subsets=[["multi-turn"]])))
    assert "100_iter_2, cannot be used" in str(multi["unsorted/100_iter_3"].problem)


# -- what else a data set has ----------------------------------------------------


def test_kris_has_several_sources_a_right_result_and_an_explanation(tmp_path: Path) -> None:
    pairs = named(read(sets.kris(tmp_path / "data")))
    several, one = pairs["temporal_prediction/1"], pairs["medicine/7"]
    assert [Path(s).name for s in several.source_images] == ["1-1.jpg", "1-3.JPG"]
    assert [Path(s).name for s in several.target_images] == ["1-2.jpg"]
    assert (one.target_images, one.metadata["explain_en"]) == ((), "ice melts")
    for place in ("KRIS_Bench", "KRIS_Bench/medicine", "KRIS_Bench/medicine/annotation.json"):
        assert "medicine/7" in named(read(tmp_path / "data" / place)), place


def test_rise_has_a_reference_in_words_or_as_a_picture(tmp_path: Path) -> None:
    words, drawn = read(sets.rise(tmp_path / "data"))
    assert (words.metadata["reference"], words.target_images) == ("a rotten banana", ())
    assert [Path(t).name for t in drawn.target_images] == ["2_ref.png"]
    chinese = sole(read(tmp_path / "data", Choice(["cn"])))
    assert (chinese.instruction, chinese.pair_id) == ("解开它", "logical_reasoning_2_cn")


def test_of_several_versions_of_rise_the_largest_is_read(tmp_path: Path) -> None:
    data = sets.rise(tmp_path / "data")
    rows = json.loads((data / "data" / "data_total.json").read_text())
    written(data / "data" / "an_older_one.json", rows[:1])
    assert len(read(data)) == 2
    assert len(read(data / "data" / "an_older_one.json")) == 1


def test_i2ebench_has_masks_right_results_and_other_wordings(tmp_path: Path) -> None:
    pairs = named(read(sets.i2ebench(tmp_path / "data")))
    tasks = ("Counting/1", "HazeRemoval/1", "RegionAccuracy/0", "StyleAlteration/1")
    assert tuple(pairs) == tasks
    assert pairs["StyleAlteration/1"].metadata["output_caption"] == "an image with oil style"
    asked = sole(read(tmp_path / "data", Choice(subsets=[["questions"]])))
    assert (asked.name, asked.metadata["Answer"]) == ("Counting/1", "One")
    assert Path(pairs["RegionAccuracy/0"].mask).is_file()
    assert Path(pairs["HazeRemoval/1"].target_images[0]).parent.name == "gt"
    diverse = sole(read(tmp_path / "data", Choice(subsets=[["diverse"]])))
    assert (diverse.instruction, diverse.name) == ("brown it", "RegionAccuracy/0_div")


def test_i2ebenchs_later_rounds_edit_the_edit_of_the_round_before(tmp_path: Path) -> None:
    data = sets.i2ebench(tmp_path / "data")
    rounds = [["rounds"], ["questions"]]
    [first, second, third] = read(data, Choice(subsets=rounds))
    assert [p.name for p in (first, second, third)] == [
        "Counting/1", "Counting/1_round2", "Counting/1_round3"
    ]  # fmt: skip
    assert first.source_images and not second.source_images
    assert (second.follows, third.follows) == (first.name, second.name)
    assert (third.instruction, third.metadata["round"]) == ("add a cow", 3)
    whole = read(data, Choice(subsets=[["original", "rounds"]]))
    assert len(whole) == len(read(data)) + 2
    file = data / "EditData" / "Counting" / "Counting.json"
    written(file, {"1": {**json.loads(file.read_text())["1"], "div_exp": "a cat, please"}})
    other = read(data, Choice(subsets=[["diverse"], ["rounds"]]))
    assert [p.pair_id for p in other] == ["1_div", "1_round2_div", "1_round3_div"]
    assert [p.follows for p in other] == ["", "Counting/1_div", "Counting/1_round2_div"]
    assert "round" not in str([p.name for p in read(data, Choice(subsets=[["diverse"]]))])
    file.rename(file.with_name("moved.json.bak"))
    assert "Counting" not in {pair.category for pair in read(data)}, "nothing begins"


def test_no_part_of_a_benchmark_is_lost_with_its_first_row(tmp_path: Path) -> None:
    """Nor with a file that is cut short: it says so, instead of a table without that task."""
    data = sets.i2ebench(tmp_path / "i2ebench")
    file = data / "EditData" / "HazeRemoval" / "HazeRemoval.json"
    rows = json.loads(file.read_text())
    written(file, {"0": {"image": "0001.png"}, **rows})
    pairs = named(read(data))
    assert "ori_exp: is missing" in str(pairs["HazeRemoval/0"].problem)
    assert pairs["HazeRemoval/1"].problem is None
    file.write_text(file.read_text()[:-9])
    with pytest.raises(InputError, match=r"HazeRemoval\.json: not valid JSON"):
        read(data)
    data = sets.anyedit_bench(tmp_path / "anyedit")
    file = data / "anybench" / "color_alter" / "edit_result.json"
    written(file, ["a row?", *json.loads(file.read_text())])
    assert [pair.problem is None for pair in read(data)] == [False, True, True]


def test_edits_beside_the_sources_are_not_taken_for_them(tmp_path: Path) -> None:
    """Where a table names files alone, which lie in a folder beside it."""
    data = sets.imgedit(tmp_path / "data") / "hard"
    [pair] = read(data)
    assert Path(pair.source_images[0]).parent.name == "original_images"
    sets.picture(data / "my_edits" / "3.jpg", BLUE)
    [pair] = read(data)
    assert "'3.jpg' is in several folders" in str(pair.problem)
    assert "(my_edits, original_images)" in str(pair.problem)


def test_what_of_a_row_is_no_text_is_told_and_not_passed_over(tmp_path: Path) -> None:
    """A question that is a number would be no question, and a wording none."""
    data = sets.i2ebench(tmp_path / "data")
    file = data / "EditData" / "Counting" / "Counting.json"
    row = {**json.loads(file.read_text())["1"], "div_exp": "one more cat"}
    rows = {"1": {**row, "Answer": 1}, "2": {**row, "Evaluation": 5}, "3": {**row, "Answer": ""},
            "4": {**row, "div_exp": ["x"]}}  # fmt: skip
    written(file, rows)
    asked = {p.pair_id: str(p.problem) for p in read(data, Choice(subsets=[["questions"]]))}
    assert list(asked) == ["1", "2", "3", "4"] and asked["1"] == asked["4"] == "None"
    assert "row 2: Evaluation: expected text (found 5)" in asked["2"]
    assert "row 3: Answer: is missing" in asked["3"]
    diverse = named(read(data, Choice(subsets=[["diverse"]], categories=["Counting"])))
    assert "row 4: div_exp: expected text" in str(diverse["Counting/4_div"].problem)
    assert diverse["Counting/1_div"].problem is None


def test_a_right_result_that_is_missing_is_missed(tmp_path: Path) -> None:
    data = sets.i2ebench(tmp_path / "data")
    right = data / "EditData" / "HazeRemoval" / "gt" / "0001.png"
    right.unlink()
    assert named(read(data))["HazeRemoval/1"].target_images == (str(right),)


def test_anybenchs_types_are_its_folders(tmp_path: Path) -> None:
    """As its script goes by them, whatever the rows call it."""
    data = sets.anyedit_bench(tmp_path / "data")
    file = data / "anybench" / "visual_depth" / "edit_result.json"
    [row] = json.loads(file.read_text())
    written(file, [{**row, "edit_type": "visual_dep"}])
    assert [pair.category for pair in read(data)] == ["color_alter", "visual_depth"]


def test_a_row_that_cannot_be_read_fails_in_every_part_that_it_may_be_of(tmp_path: Path) -> None:
    """Which part that is stands in the row: to leave it out would be a table of fewer pairs."""
    data = sets.rededit(tmp_path / "red")
    file = data / "redbench" / "redbench.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    written(file, [{**rows[0], "source": 5}, *rows[1:], {**rows[0], "id": "3"}])
    for language in ("en", "cn"):
        assert [p.name for p in read(data, Choice([language])) if p.problem] == ["add/1"]
    data = sets.i2ebench(tmp_path / "i2ebench")
    file = data / "EditData" / "Counting" / "Counting.json"
    written(file, {"0": "a row?", **json.loads(file.read_text())})
    file = data / "EditData" / "HazeRemoval" / "HazeRemoval.json"
    written(file, {"0": {"image": 1}, **json.loads(file.read_text())})
    asked = read(data, Choice(subsets=[["questions"]]))
    assert [str(p.problem)[:19] for p in asked] == ["None", "Counting.json row 0"], (
        "tasks without questions have none"
    )
    file = data / "EditData" / "Counting" / "Counting_2nd.json"
    written(file, {"1": {"image": 1}})
    assert not any("2nd" in str(pair.problem) for pair in read(data)), "it was not asked for"
    assert any("2nd" in str(pair.problem) for pair in read(data, Choice(subsets=[["rounds"]])))


@pytest.mark.parametrize("build", BUILDERS["anyedit"])
def test_anyedits_further_picture_is_a_source_and_a_reference(build: Build, tmp_path: Path) -> None:
    plain, visual = read(build(tmp_path / "data"))
    assert (len(plain.source_images), plain.reference_images) == (1, ())
    assert visual.source_images[1:] == visual.reference_images != ()
    assert len(plain.target_images) == 1 and plain.metadata["input"]
    assert plain.metadata["output_caption"] == plain.metadata["output"], "as metrics know it"
    assert all(Path(file).is_file() for file in (*visual.source_images, *visual.target_images))


def test_emu_edits_splits_count_from_0_each(tmp_path: Path) -> None:
    pairs = read(sets.emu_edit(tmp_path / "data"))
    assert [pair.name for pair in pairs] == ["add/test_0", "add/validation_0"]
    assert pairs[0].metadata["output_caption"] == "a man with a hat"
    assert [p.pair_id for p in read(tmp_path / "data", Choice(subsets=[["test"]]))] == ["test_0"]


def test_both_languages_of_a_row_are_pairs_and_one_is_run_unless_asked(tmp_path: Path) -> None:
    data = sets.rededit(tmp_path / "data")
    assert [pair.name for pair in read(data)] == ["add/1", "remove/2"]
    assert [pair.language for pair in read(data)] == ["en", "cn"]
    assert [pair.name for pair in read(data, Choice(["zh"]))] == ["add/1_cn", "remove/2"]
    assert len(read(data, Choice(["en", "cn"]))) == 3


@pytest.mark.parametrize("build", BUILDERS["re_edit"])
def test_re_edit_in_each_of_its_forms(build: Build, tmp_path: Path) -> None:
    data = build(tmp_path)
    pairs = read(data)
    assert [pair.pair_id for pair in pairs] == ["pair_0000", "pair_0001"]
    assert [pair.language for pair in pairs] == ["en", "cn"]
    assert [pair.seed_offset for pair in pairs] == [0, 1], (
        "as in the runs before there was a choice"
    )
    chinese = read(data, Choice(["cn"]))
    assert [pair.instruction for pair in chinese] == ["点燃它", "融化它"]
    assert content(chinese[1].source_images[0]) == RED


@pytest.mark.parametrize("build", BUILDERS["complex_edit"])
def test_complex_edits_complexities_and_steps(build: Build, tmp_path: Path) -> None:
    data = build(tmp_path / "data")
    pairs = read(data)
    assert {pair.pair_id for pair in pairs} <= {"0000_C2", "0001_C2"}
    assert pairs[0].instruction == "add a hat, and make it night"
    assert pairs[0].category in ("real", "syn")
    assert read(data, Choice(subsets=[["C1"]]))[0].instruction == "add a hat"
    first, second = read(data, Choice(subsets=[["sequence"]]))[:2]
    assert (second.follows, second.instruction) == (first.name, "make it night")


def test_omnicontext_has_several_sources(tmp_path: Path) -> None:
    pair, other = read(sets.omnicontext(tmp_path / "data"))
    assert (pair.name, other.name) == ("scene_character/k1", "multi_object/k2")
    assert [content(source) for source in pair.source_images] == [RED, BLUE]


# -- edits that exist ------------------------------------------------------------


def test_editscores_edits_are_one_pair_each_and_keep_every_comparison(tmp_path: Path) -> None:
    pairs = read(sets.editscore_bench(tmp_path / "data"))
    assert [pair.name for pair in pairs] == ["color_alter/k1", "color_alter/k2", "color_alter/k3"]
    assert [content(pair.edited_image) for pair in pairs] == [BLUE, GREEN, GREEN]
    said = [(c.first[-2:], c.second[-2:], c.preferred, c.dimension) for c in comparisons_of(pairs)]
    assert said == [
        ("k1", "k2", 1, "overall"), ("k1", "k3", 1, "overall"), ("k2", "k1", 1, "consistency"),
    ]  # fmt: skip
    assert {pair.metadata["group"] for pair in pairs} == {"k1"}


def test_editreward_benchs_groups_and_ties(tmp_path: Path) -> None:
    pairs = named(read(sets.editreward_bench(tmp_path / "data")))
    assert [*pairs] == ["2pair/0123456789_A", "2pair/0123456789_B", "3pair/g7_A", "3pair/g7_B",
                        "3pair/g7_C"]  # fmt: skip
    assert content(pairs["3pair/g7_C"].edited_image) == png("#000043")
    assert pairs["3pair/g7_B"].metadata["model"] == "model B"
    said = comparisons_of(pairs.values())
    assert [(c.first[-1], c.second[-1], c.preferred, c.part) for c in said] == [
        ("A", "B", 0, "2pair"), ("A", "B", 1, "3pair"), ("A", "C", -1, "3pair"),
        ("B", "C", -1, "3pair"),
    ]  # fmt: skip
    threes = read(tmp_path / "data", Choice(subsets=[["3pair"]]))
    assert len(comparisons_of(threes)) == 3


def test_a_ranking_that_cannot_be_read_fails_its_row_alone(tmp_path: Path) -> None:
    data = sets.editreward_bench(tmp_path / "data")
    rows = [
        {"id": f"g{i}_x", "instruction": "x", "source_image": cell(RED), "candidate_1": cell(RED),
         "candidate_2": cell(BLUE), "ranking": ranking, "comparison_type": "AvsB"}
        for i, ranking in enumerate(("A>B", "A>C", ""))
    ]  # fmt: skip
    parquet(data / "2pair" / "train-00000-of-00001.parquet", rows)
    problems = [str(pair.problem) for pair in read(data) if pair.problem]
    assert len(problems) == 2
    assert "train-00000-of-00001.parquet row 2: ranking: expected A>B, B>A or A=B" in problems[0]
    assert "row 3: ranking: is missing or empty" in problems[1]


def test_ranks_say_who_was_preferred() -> None:
    ranked = [
        Pair(f"{group}{i}", "c", metadata={"group": group, "rank": rank})
        for group, ranks in (("g", (1, 2, 2)), ("h", (1,)))
        for i, rank in enumerate(ranks)
    ]
    said = [(c.first, c.second, c.preferred) for c in comparisons_of(ranked)]
    assert said == [("c/g0", "c/g1", 1), ("c/g0", "c/g2", 1), ("c/g1", "c/g2", 0)]


# -- imagefolders and mappings ---------------------------------------------------


@pytest.mark.parametrize("build", BUILDERS["imagefolder"])
def test_an_imagefolder_in_each_of_its_forms(build: Build, tmp_path: Path) -> None:
    pair = sole(read(build(tmp_path / "data")))
    assert pair.instruction.startswith("make it night")
    assert content(pair.source_images[0]) == RED
    assert pair.seed_by_id is (build is not sets.own)


def test_numbers_that_stand_for_names_are_read_as_these(tmp_path: Path) -> None:
    """As `datasets` writes a ClassLabel; -1 is its word for none."""
    features = {"category": {"names": ["sky", "sea"], "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = [{**sets.hf_rows()[0], "category": number} for number in (1, 0, -1)]
    made = pyarrow.Table.from_pylist(rows).replace_schema_metadata(said)
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(made, tmp_path / "data" / "t.parquet")
    assert [pair.category for pair in read(tmp_path / "data")] == ["sea", "sky", "-1"]


def test_what_tables_hold_and_json_does_not_is_kept_as_text_or_left_out(tmp_path: Path) -> None:
    others = {"made": datetime(2026, 1, 2), "price": Decimal("1.50"), "raw": {"x": b"\xff"}}
    data = parquet(tmp_path / "data" / "t.parquet", [{**sets.hf_rows()[0], **others}])
    assert sole(read(data)).metadata == {"made": "2026-01-02 00:00:00", "price": "1.50"}


def test_splits_are_subsets(tmp_path: Path) -> None:
    data = sets.hf_lines(tmp_path / "data")
    written(data / "test" / "metadata.jsonl", [{"file_name": "0.png", "instruction": "x"}])
    sets.picture(data / "test" / "0.png", BLUE)
    assert len(read(data)) == 2
    assert content(sole(read(data, Choice(subsets=[["test"]]))).source_images[0]) == BLUE
    with pytest.raises(InputError, match=r"subset: 'dev' is not in data; there are test, train\."):
        read(data, Choice(subsets=[["dev"]]))


FOREIGN = {"key": 7, "edit": "make it night", "image_file": "a.png", "edit_kind": "sky", "n": 3}
FIELDS = {"instruction": "edit", "image": "image_file", "category": "edit_kind", "id": "key"}


def table(folder: Path, suffix: str) -> Path:
    """A table of no known form with one row."""
    file = folder / f"table{suffix}"
    if suffix == ".csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*FOREIGN])
            writer.writeheader()
            writer.writerow(FOREIGN)
        return file
    if suffix == ".parquet":
        return parquet(file, [FOREIGN])
    return written(file, {"7": FOREIGN} if suffix == ".json" else [FOREIGN])


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_any_table_is_read_by_a_mapping(suffix: str, whole_folder: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    sets.picture(data / "a.png")
    file = table(data, suffix)
    fields = load_benchmark_settings({"fields": FIELDS}).fields
    pair = sole(read(data if whole_folder else file, fields=fields))
    assert (pair.problem, pair.name, pair.instruction) == (None, "sky/7", "make it night")
    assert str(pair.metadata["n"]) == "3" and content(pair.source_images[0]) == RED


def test_a_mapping_may_name_everything_a_pair_has(tmp_path: Path) -> None:
    row = {
        "text": "x", "one": cell(RED), "two": cell(BLUE), "right": cell(GREEN), "where": cell(RED),
        "done": cell(BLUE), "tongue": "cn", "place": 2, "family": "f", "part": "hard",
    }  # fmt: skip
    data = parquet(tmp_path / "data" / "t.parquet", [row, {**row, "place": 1}])
    fields = {
        "instruction": "text", "image": ["one", "two"], "target": "right", "mask": "where",
        "edited": "done", "language": "tongue", "rank": "place", "group": "family", "split": "part",
    }  # fmt: skip
    pairs = read(data, fields=fields)
    pair = pairs[0]
    assert [content(s) for s in pair.source_images] == [RED, BLUE]
    assert (content(pair.target_images[0]), content(pair.mask)) == (GREEN, RED)
    assert (content(pair.edited_image), pair.language, pair.subsets) == (BLUE, "cn", ("hard",))
    assert [c.preferred for c in comparisons_of(pairs)] == [-1]


def test_a_mapping_to_a_column_that_is_not_there_says_which_are(tmp_path: Path) -> None:
    data = written(tmp_path / "t.json", [FOREIGN])
    pair = sole(read(data, fields={**FIELDS, "instruction": "edits"}))
    assert (
        "t.json row 1: edits: is not a field of this row (`fields` maps instruction to it)"
        in str(pair.problem)
    )
    assert "It has key, edit, image_file, edit_kind, n." in str(pair.problem)
    with pytest.raises(InputError, match=r"fields\.id: expected one column"):
        read(data, fields={**FIELDS, "id": ["key", "n"]})
    with pytest.raises(InputError, match=r"fields\.imag"):
        load_benchmark_settings({"fields": {"imag": "x"}})


# -- what is chosen --------------------------------------------------------------


def test_a_sample_does_not_change_with_the_order_and_is_the_seeds() -> None:
    pairs = [Pair(f"p{i}", "c", "x", ("a.png",)) for i in range(100)]
    drawn = Choice(sample=10, sample_seed=1).of(pairs, "data")
    assert len(drawn) == 10 and drawn == [pair for pair in pairs if pair in drawn]
    turned = Choice(sample=10, sample_seed=1).of(pairs[::-1], "data")
    assert {pair.name for pair in turned} == {pair.name for pair in drawn}
    assert Choice(sample=10, sample_seed=2).of(pairs, "data") != drawn
    assert len(Choice(sample=500).of(pairs, "data")) == 100
    assert Choice(sample=10, sample_seed=1, limit=3).of(pairs, "data") == drawn[:3]


def test_turns_are_drawn_with_all_turns_before_them() -> None:
    chain = [Pair("t0", "c", "x", ("a.png",))]
    chain += [Pair(f"t{i}", "c" if i < 4 else "last", "x", follows=f"c/t{i - 1}") for i in (1, 2)]
    chain.append(Pair("t3", "last", "x", follows="c/t2"))
    alone = [Pair(f"a{i}", "c", "x", ("a.png",)) for i in range(5)]
    for seed in range(20):
        drawn = Choice(sample=1, sample_seed=seed).of([*chain, *alone], "data")
        names = [pair.pair_id for pair in drawn]
        assert names in [
            ["t0", "t1", "t2", "t3"][: len(names)],
            *([pair.pair_id] for pair in alone),
        ]
    assert Choice(categories=["last"]).of([*chain, *alone], "data") == chain


def test_a_subset_edits_the_same_pictures_as_the_whole(tmp_path: Path) -> None:
    data = sets.kris(tmp_path / "data")
    whole = {pair.name: pair.seed_offset for pair in read(data)}
    assert len({*whole.values()}) == len(whole)
    part = sole(read(data / "KRIS_Bench" / "medicine"))
    assert part.seed_offset == whole[part.name]


@pytest.mark.parametrize(("seed_by", "offsets"), [("auto", [0, 1]), ("position", [0, 1])])
def test_own_forms_have_the_seeds_of_their_places(
    seed_by: SeedBy, offsets: list[int], tmp_path: Path
) -> None:
    data = sets.own(tmp_path / "data")
    row = {"input_file_name": "a.png", "instruction": "x"}
    written(data / "metadata.jsonl", [row, {**row, "category": "sea"}])
    assert [pair.seed_offset for pair in read(data, seed_by=seed_by)] == offsets
    by_id = read(data, seed_by="id")
    later = sole(read(data, Choice(categories=["sea"]), seed_by="id"))
    assert later.seed_offset == by_id[1].seed_offset not in (0, 1)


def test_flags_and_settings_choose_alike() -> None:
    options = parse_arguments(
        ["--language", "en,cn", "--subset", "dev", "--subset", "single-turn,multi-turn",
         "--sample", "5", "--sample-seed", "3", "--limit", "2"]
    )  # fmt: skip
    flags = {
        n: getattr(options, n) for n in ("language", "subset", "sample", "sample_seed", "limit")
    }
    settings = load_benchmark_settings(flags)
    assert settings.choice == Choice(
        ["en", "cn"], [["dev"], ["single-turn", "multi-turn"]], None, 5, 3, 2
    )
    assert load_benchmark_settings({"language": "en", "seed": 9}).choice.sample_seed == 9


def test_a_run_of_a_part_makes_the_pictures_of_the_whole(tmp_path: Path) -> None:
    """The whole command, with a table and with the folder that the example script leaves."""
    config = {"editor": {"model": "simulated"}, "judge": {"model": "simulated"}, "gallery": False}
    settings = written(tmp_path / "config.json", {**config, "use_server": "never"})
    table, script = sets.gedit_parquet(tmp_path / "table"), sets.gedit_script(tmp_path / "script")
    runs = {
        "whole": [str(table)],
        "part": [str(table), "--subset", "intersection", "--language", "zh"],
        "other": [str(script), "--categories", "background_change"],
    }
    for name, flags in runs.items():
        options = ["--config", str(settings), "--name", name, "--data", *flags]
        options += ["--output-dir", str(tmp_path / "out"), "--quiet"]
        assert main(options, backend=InlineBackend()) == 0
    edits = {name: edits_of(tmp_path / "out" / name) for name in runs}
    assert [len(each) for each in edits.values()] == [3, 1, 2]
    for part in ("part", "other"):
        assert edits[part].items() <= edits["whole"].items()


def edits_of(results: Path) -> dict[str, bytes]:
    """Pixels of the edits, by their places."""
    files = (results / "edits").rglob("*.png")
    return {
        file.relative_to(results).as_posix(): Image.open(file).convert("RGB").tobytes()
        for file in files
    }


# -- pictures inside of tables ---------------------------------------------------


def test_only_the_pictures_of_the_pairs_that_are_run_are_written(tmp_path: Path) -> None:
    pictures = [png(f"#{i:02x}0000") for i in range(20)]
    rows = [
        {"image": cell(data), "instruction": "x", "category": f"c{i % 2}"}
        for i, data in enumerate(pictures)
    ]
    data = parquet(tmp_path / "data" / "t.parquet", rows, group=7)
    read(data, Choice(limit=3))
    assert len(list((tmp_path / "data" / "work").glob("*.img"))) == 3
    odd = read(data, Choice(categories=["c1"]))
    assert [content(pair.source_images[0]) for pair in odd] == pictures[1::2]


@pytest.mark.parametrize("build", [sets.gedit_parquet, sets.gedit_arrow, sets.re_edit_list])
def test_a_second_run_reads_and_writes_no_picture_again(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build(tmp_path / "data")
    first, work = read(data), data.parent / "work"
    files = {f: f.stat().st_mtime_ns for f in work.glob("*.img")}
    with monkeypatch.context() as patched:
        patched.setattr(
            "apps.edit_benchmark.embedded.arrow_pictures", lambda *_: pytest.fail("read again")
        )
        patched.setattr(
            "apps.edit_benchmark.embedded.encoded_pictures", lambda *_: pytest.fail("read again")
        )
        assert read(data) == first
    assert {f: f.stat().st_mtime_ns for f in work.glob("*.img")} == files
    # What was removed or cut is written again, and only that.
    gone = Path(first[0].source_images[0])
    gone.write_bytes(b"cut")
    assert read(data) == first and gone.read_bytes() == RED


def test_a_picture_may_be_a_data_url(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(BLUE).decode()
    rows = [{"edit": "x", "image": image} for image in (url, "data:image/png;base64,%%%")]
    data = written(tmp_path / "t.json", rows)
    good, bad = read(data, fields={"instruction": "edit", "image": "image"})
    assert content(good.source_images[0]) == BLUE
    assert "t.json row 2: image: not base64" in str(bad.problem)


def test_a_table_that_changed_is_read_again(tmp_path: Path) -> None:
    data = sets.hf_shards(tmp_path / "data")
    read(data)
    row = {"image": cell(BLUE), "instruction": "make it day, and green", "category": "sky"}
    parquet(data / "data" / "test-00000-of-00001.parquet", [row])
    assert content(sole(read(data)).source_images[0]) == BLUE


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    data = sets.hf_shards(tmp_path / "data")
    first = read(data)
    (tmp_path / "work" / embedded.INDEX).write_text("[{")
    assert read(data) == first


def test_a_cell_without_a_picture_fails_its_pair_alone(tmp_path: Path) -> None:
    rows = [
        {"image": image, "instruction": "x"}
        for image in (cell(RED), None, {"bytes": b"", "path": None},
                      {"bytes": None, "path": "../../etc/passwd"}, {"bytes": None, "path": "b.png"})
    ]  # fmt: skip
    data = parquet(tmp_path / "data" / "t.parquet", rows)
    sets.picture(data.parent / "b.png", BLUE)
    good, none, empty, outside, beside = read(data)
    assert good.problem is None and content(beside.source_images[0]) == BLUE
    assert "t.parquet row 2: input_file_name: is missing" in str(none.problem)
    assert "t.parquet row 3: image: holds no picture." in str(empty.problem)
    assert "row 4: image: path: '../../etc/passwd' leads out of" in str(outside.problem)
    assert not outside.source_images


def test_tables_without_pyarrow_are_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sets.hf_shards(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="needs pyarrow, which is not installed: pip install"):
        read(data)


# -- hostile files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.parquet", b"PAR1", "cannot be read as parquet"),
        ("t.parquet", b"", "cannot be read as parquet"),
        ("t.arrow", b"ARROW1\0\0", "cannot be read as arrow"),
        ("t.arrow", b"\xff\xff\xff\xff", "cannot be read as arrow"),
        ("t.csv", b'file_name,instruction\n"a', "not valid at line"),
        ("t.csv", b"\xff\xfe", "not UTF-8"),
        ("t.json", b'[{"a": 1}', "not valid JSON at row 1: expected ',', found 'the end'"),
        ("t.json", b'{"a": {"b": [1, 2}}', "not valid JSON at row 1"),
        ("t.json", b"[" * 100_000, "not valid JSON"),
        ("t.json", b"[] []", "not valid JSON: text after its end"),
        ("t.json", b"17", "expected a list or an object of rows, found a int"),
        ("t.json", b"\xff[]", "not UTF-8"),
    ],
)
def test_a_damaged_file_is_one_clear_error(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(file)
    assert message in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize("build", [sets.gedit_parquet, sets.gedit_arrow])
def test_a_table_with_wrong_bytes_is_pairs_or_an_error(build: Build, tmp_path: Path) -> None:
    data, rng = build(tmp_path / "data"), random.Random(0)
    file = next(f for f in data.rglob("*") if f.suffix in (".parquet", ".arrow"))
    whole, refused = file.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        at = rng.randrange(len(whole))
        damaged[at : at + rng.randrange(5)] = rng.choice([b"\xff\xff\xff\xff", b"", b"\0\x80"])
        file.write_bytes(damaged)
        try:
            assert read(data)
        except InputError as error:
            refused += 1
            assert str(error)
    assert refused


HOSTILE: list[Any] = [
    None, 5, "text", [], {}, ["a"], {"a": 1}, True, float("nan"), "a\0b", "../../etc",
    "/etc/passwd", "", 2**70,
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, ...]]:
    """Where the fields of rows are in a JSON value."""
    found: list[tuple[Any, ...]] = []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        found.append((key,))
        if isinstance(inner, dict | list):
            found += [(key, *rest) for rest in places(inner)]
    return found


def changed(value: Any, place: tuple[Any, ...], to: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = to
    return copy


JSON_FORMS = ["imgedit", "kris", "rise", "magicbrush_disk", "i2ebench", "anyedit_json"]


@pytest.mark.parametrize("name", JSON_FORMS)
def test_whatever_a_field_holds_is_a_pair_or_a_problem(name: str, tmp_path: Path) -> None:
    """No value of any field of any row ends in anything but pairs and clear errors."""
    data = getattr(sets, name)(tmp_path / "data")
    form = next(f for f, builds in BUILDERS.items() if getattr(sets, name) in builds)
    for file in sorted(data.rglob("*.json")):
        rows = json.loads(file.read_text())
        for place in places(rows):
            for value in HOSTILE:
                written(file, changed(rows, place, value))
                try:
                    pairs = DATA_SETS[form].read(data, tmp_path / "work")
                except InputError as error:
                    assert str(error)
                    continue
                assert all(pair.problem or pair.instruction for pair in pairs), (place, value)
                inside = str(tmp_path)
                assert all(s.startswith(inside) for p in pairs for s in p.source_images)
        written(file, rows)


# -- JSON in pieces --------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
def test_json_is_the_same_in_pieces_of_any_size(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.edit_benchmark.json_skeleton._BUFFER", chunk)
    values: list[Any] = [{"a": 'é\u2028\\"]}', "n": -12.5e3}, [1, [2]], "text", 1234567, None, {}]
    listed = written(tmp_path / "list.json", values)
    assert [value for _, value in json_rows(listed)] == values
    keyed = written(tmp_path / "keyed.json", {str(i): v for i, v in enumerate(values)})
    found = dict(json_rows(keyed))
    assert found == {str(i): value for i, value in enumerate(values)}
    wrapped = written(tmp_path / "data.json", {"n": 1, "data": values, "m": {"x": 1}})
    assert [value for key, value in json_rows(wrapped) if not key] == values
    with_mark = tmp_path / "mark.json"
    with_mark.write_text("\ufeff" + json.dumps(values), "utf-8")
    assert [value for _, value in json_rows(with_mark)] == values


def test_lines_under_another_name_are_rows(tmp_path: Path) -> None:
    file = tmp_path / "lines.json"
    file.write_text('{"a": 1}\n{"a": 2}\nno\n')
    rows = [value for _, value in json_rows(file)]
    assert rows[:2] == [{"a": 1}, {"a": 2}] and isinstance(rows[2], InputError)


def test_names_that_clash_keep_who_follows_whom(tmp_path: Path) -> None:
    turns = {"turn1": "a", "turn2": "b"}
    rows = {"a b": {"id": "1.png", **turns}, "a/b": {"id": "1.png", **turns}}
    data = written(tmp_path / "data" / "m.json", rows)
    pairs = read(data)
    assert [pair.problem for pair in pairs] == [None] * 4
    assert [pair.follows for pair in pairs] == ["", pairs[0].name, "", pairs[2].name]


def test_a_set_of_pairs_is_chosen_from_without_reading_it_again() -> None:
    pairs = [Pair("a", "sky", "x"), replace(Pair("b", "sea", "x"), language="cn")]
    assert PairSet("data", pairs).selected(Choice(["cn"])).categories == ["sea"]
