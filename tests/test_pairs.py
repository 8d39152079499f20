"""The three forms of input, and what is wrong with them."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from PIL import Image

from apps.edit_benchmark.categories import category_folder
from apps.edit_benchmark.options import parse_arguments
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pairs import PairSet, read_pairs
from apps.edit_benchmark.selection import Choice
from core.checkpoints.lora_files import LoraInspector
from core.errors import InputError
from core.intake.admission import Admission, Admitted
from core.intake.kinds.edit import EditKind
from core.intake.task_kinds import LoraFinder
from core.pictures.source_images import inspect_image, read_image
from core.store.outputs import OutputRoot
from core.tasks import EditTask
from tests import published_sets


def png(colour: str = "red", size: tuple[int, int] = (32, 24)) -> bytes:
    stream = BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def read(data: Path) -> PairSet:
    return read_pairs(data, data.parent / "work")


def only(data: Path) -> Pair:
    (pair,) = read(data).pairs
    return pair


# -- RE-Edit -----------------------------------------------------------------


def re_edit(folder: Path, *rows: Any) -> Path:
    file = folder / "re_edit.json"
    file.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return file


def test_re_edit_with_embedded_pictures(tmp_path: Path) -> None:
    row = {
        "subset": "physical",
        "original_image_path": "images/ice.png",
        "src_img_b64": base64.b64encode(png()).decode(),
        "edit_instruction_en": "let the ice melt",
        "original_description_en": "ice on a table",
        "rationale_short_en": "it is hot",
    }
    pair = only(re_edit(tmp_path, row))
    assert (pair.category, pair.instruction, pair.language) == (
        "physical", "let the ice melt", "en",
    )  # fmt: skip
    assert Path(pair.source_images[0]).read_bytes() == png()
    assert pair.metadata == {
        "original_description_en": "ice on a table", "rationale_short_en": "it is hot",
    }  # fmt: skip


def test_re_edit_with_pictures_beside_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "ice.png").write_bytes(png())
    row = {"original_image_path": "images/ice.png", "edit_instruction_cn": "让冰融化"}
    pair = only(re_edit(tmp_path, {**row, "subset": "物理"}))
    assert (pair.category, pair.instruction, pair.language) == ("物理", "让冰融化", "cn")
    assert pair.pair_id == "0000_ice"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"src_img_b64": "%%%"}, "src_img_b64: not base64"),
        ({}, "src_img_b64: is missing"),
        ({"original_image_path": "../../etc/passwd"}, "leads out of"),
        ({"original_image_path": "a\0b.png"}, "NUL"),
        ({"original_image_path": 7}, "expected text"),
        ({"edit_instruction_en": ""}, "edit_instruction_en: is missing or empty"),
        ({"edit_instruction_en": ["a"]}, "expected text"),
        ("just a text", "expected an object"),
    ],
)
def test_a_bad_row_keeps_its_place(tmp_path: Path, row: Any, message: str) -> None:
    base = {"edit_instruction_en": "melt it", "subset": "physical"}
    whole = {**base, **row} if isinstance(row, dict) else row
    good = {**base, "src_img_b64": base64.b64encode(png()).decode()}
    bad, other = read(re_edit(tmp_path, whole, good)).pairs
    assert message in str(bad.problem) and other.problem is None


def test_a_data_url_is_read_as_well(tmp_path: Path) -> None:
    text = "data:image/png;base64," + base64.b64encode(png()).decode()
    pair = only(re_edit(tmp_path, {"edit_instruction_en": "x", "src_img_b64": text}))
    assert Path(pair.source_images[0]).read_bytes() == png()


@pytest.mark.parametrize("text", ["{", "{}", "[]", "[[[[", '"x"', ""])
def test_a_file_of_no_pairs_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError):
        read(tmp_path / "x.json")


def test_re_edit_takes_numbers_for_names_and_hints_at_other_columns(tmp_path: Path) -> None:
    embedded = {"src_img_b64": base64.b64encode(png()).decode()}
    good, other, lost = read(
        re_edit(
            tmp_path,
            {**embedded, "subset": 3, "edit_instruction_en": "x", "rationale_short_en": NAN},
            {**embedded, "prompt": "make it blue"},
            {"edit_instruction_en": "x", "image": "a.png"},
        )
    ).pairs
    assert (good.problem, good.category) == (None, "3")
    assert good.metadata == {"rationale_short_en": None}
    assert "did you mean 'prompt'?" in str(other.problem)
    assert "did you mean 'image'?" in str(lost.problem)


# -- imagefolder -------------------------------------------------------------


def imagefolder(folder: Path, *rows: Any) -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "a.png").write_bytes(png())
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    (data / "metadata.jsonl").write_text(text, "utf-8")
    return data


def test_an_imagefolder_with_several_pictures_a_pair(tmp_path: Path) -> None:
    row = {
        "input_file_names": ["a.png", "a.png"],
        "instruction": "swap them",
        "category": "Mix & match",
        "mood": "calm",
    }
    pair = only(imagefolder(tmp_path, row))
    assert len(pair.source_images) == 2 and pair.category == "Mix & match"
    assert pair.metadata == {"mood": "calm"}


NAN = float("nan")


@pytest.mark.parametrize(
    ("given", "taken"), [(3, "3"), (0, "0"), (-1, "-1"), (3.0, "3"), (2.5, "2.5"), (2**70, None)]
)
def test_numbers_are_taken_as_names(tmp_path: Path, given: float, taken: str | None) -> None:
    row = {"input_file_name": "a.png", "instruction": "x", "category": given, "pair_id": given}
    pair = only(imagefolder(tmp_path, row))
    assert pair.problem is None
    assert (pair.category, pair.pair_id) == (taken or str(given), (taken or str(given)).strip("._"))


def test_a_name_that_is_neither_text_nor_a_number_is_refused(tmp_path: Path) -> None:
    row = {"input_file_name": "a.png", "instruction": "x"}
    for value in (True, ["a"], {"a": 1}, float("inf")):
        pair = only(imagefolder(tmp_path, {**row, "category": value}))
        assert "category: expected text" in str(pair.problem), value


def test_no_number_is_no_name(tmp_path: Path) -> None:
    """Tables write NaN where a cell is empty."""
    row = {"input_file_name": "a.png", "instruction": "x", "category": NAN, "language": NAN}
    pair = only(imagefolder(tmp_path, row))
    assert (pair.problem, pair.category, pair.language) == (None, "unsorted", "en")
    pair = only(imagefolder(tmp_path, {**row, "instruction": NAN}))
    assert "instruction: is missing or empty" in str(pair.problem)


UNUSUAL: dict[str, Any] = {
    "NaN": {"score": NAN, "deep": {"a": [1, float("inf")]}},
    "40 kB": {"notes": "x" * 40_000},
    "many columns": {f"column {i}": "y" * 1_000 for i in range(60)},
    "our words": {"task_id": "a/b", "seed": -1, "prompt": "p", "output_path": "../x.png"},
    "odd names": {"": 1, "🌧": [None], "a\nb": {"c": []}, "__index_level_0__": 7},
    "deep": {"deep": json.loads("[" * 400 + "]" * 400)},
    "halves": {"text": "\ud800"},
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_columns_that_nothing_reads_are_taken(tmp_path: Path, case: str) -> None:
    """They become a task, whatever they hold, and travel with it as far as they are small."""
    row = {"input_file_name": "a.png", "instruction": "x", "mood": "calm"}
    pair = only(imagefolder(tmp_path, {**row, **UNUSUAL[case]}))
    assert pair.problem is None and pair.metadata["mood"] == "calm"
    kind = EditKind([], LoraFinder([tmp_path], LoraInspector()))
    admission = Admission(kind, "m", "float32", OutputRoot(tmp_path / "out"), lambda _: "e.png", 42)
    task = EditTask(
        pair.instruction, pair.source_images, metadata={"category": "c"} | pair.metadata
    )
    job = admission.admit(0, task)
    assert isinstance(job, Admitted), job
    if case == "NaN":
        assert pair.metadata["score"] is None and pair.metadata["deep"] == {"a": [1, None]}


def test_columns_that_find_no_room_are_told_of_in_one_line(tmp_path: Path) -> None:
    row = {"input_file_name": "a.png", "instruction": "x"}
    many = {f"wide {i}": "y" * 1_000 for i in range(300)}
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    try:
        read(imagefolder(tmp_path, {**row, **many}, {**row, **many}))
    finally:
        logger.remove(sink)
    assert len(lines) == 1 and lines[0].startswith("Columns 'wide 7' and others are not kept")


@pytest.mark.parametrize(
    ("columns", "field", "meant"),
    [
        ({"prompt": "x"}, "instruction", "prompt"),
        ({"edit_instruction": "x", "text": "y"}, "instruction", "edit_instruction"),
        ({"edit_prompt": "x"}, "instruction", "edit_prompt"),
        ({"instruction": "", "edit": "x"}, "instruction", "edit"),
        ({"prompt": "", "instruction_en": "x"}, "instruction", "instruction_en"),
        ({"instruction": "x", "input_file_name": None, "image_path": "a.png"}, "input_file_name",
         "image_path"),
        ({"instruction": "x", "input_file_name": "", "image": "a.png"}, "input_file_name", "image"),
    ],
)  # fmt: skip
def test_a_column_under_another_name_is_hinted_at(
    tmp_path: Path, columns: dict[str, Any], field: str, meant: str
) -> None:
    pair = only(imagefolder(tmp_path, {"input_file_name": "a.png", **columns}))
    assert f"{field}: is missing or empty; did you mean {meant!r}?" in str(pair.problem)


def test_a_misspelt_column_is_hinted_at(tmp_path: Path) -> None:
    pair = only(imagefolder(tmp_path, {"input_file_name": "a.png", "instrution": "x"}))
    assert "is 'instrution' misspelt?" in str(pair.problem)
    pair = only(imagefolder(tmp_path, {"input_file_name": "a.png", "instruction": "", "mood": "x"}))
    assert str(pair.problem) == "metadata.jsonl row 1: instruction: is missing or empty."


def test_a_downloaded_dataset_of_links_is_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(png())
    data = imagefolder(tmp_path, {"input_file_name": "linked.png", "instruction": "x"})
    (data / "linked.png").symlink_to(tmp_path / "blob")
    pair = only(data)
    assert pair.problem is None and inspect_image(pair.source_images[0]).width == 32


def test_a_relative_path_may_lead_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = imagefolder(tmp_path, {"input_file_name": "a.png", "instruction": "x"})
    (data / "deeper").mkdir()
    monkeypatch.chdir(data / "deeper")
    for name in ("..", "../../data"):
        found = read_pairs(name, tmp_path / "work")
        assert found.name == "data" and found.pairs[0].problem is None
        assert found.pairs[0].source_images == (str(data / "a.png"),)


def test_an_id_twice_in_one_category_is_one_failed_pair(tmp_path: Path) -> None:
    row = {"input_file_name": "a.png", "instruction": "x", "category": "c", "pair_id": "same"}
    first, second = read(imagefolder(tmp_path, row, row)).pairs
    assert first.problem is None
    assert "'same' of 'c' is given twice: entries 1 and 2" in str(second.problem)
    other = read(imagefolder(tmp_path, row, {**row, "category": "d"})).pairs
    assert all(p.problem is None for p in other)


def test_names_of_pictures_that_repeat_get_their_position(tmp_path: Path) -> None:
    names = ["a.png", "a.png", "x/a.png", "A.png", "a_0001.png", "b.png", "a.png"]
    rows = [{"input_file_name": name, "instruction": f"do {i}"} for i, name in enumerate(names)]
    pairs = read(imagefolder(tmp_path, *rows)).pairs
    ids = ["a", "a_0001", "a_0002", "A_0003", "a_0001_0004", "b", "a_0006"]
    assert [p.pair_id for p in pairs] == ids
    assert all(p.problem is None for p in pairs)
    fewer = read(imagefolder(tmp_path, *rows[:3])).pairs
    assert [p.pair_id for p in fewer] == ids[:3], "rows that are appended later change nothing"


def test_given_ids_that_look_alike_in_paths_are_no_repetition(tmp_path: Path) -> None:
    row = {"input_file_name": "a.png", "instruction": "x"}
    given: list[dict[str, str]] = [
        {},
        *({"pair_id": name} for name in ("a", "a b", "a/b", "🌧", "🌈")),
    ]
    pairs = read(imagefolder(tmp_path, *({**row, **g} for g in given))).pairs
    assert all(p.problem is None for p in pairs)
    assert [p.pair_id for p in pairs] == [
        "a", "a_0001", "a_b", "a_b_0003", "pair", "pair_0005",
    ]  # fmt: skip


def test_a_line_separator_inside_text_ends_no_row(tmp_path: Path) -> None:
    text = "make it\u2028night\x85now"
    row = json.dumps({"input_file_name": "a.png", "instruction": text}, ensure_ascii=False)
    assert only(imagefolder(tmp_path, row)).instruction == text


def test_chosen_categories_may_hold_anything_but_must_be_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = parse_arguments(["--categories", 'Mix & match, "mist, fog",颜色,'])
    assert options.categories == ["Mix & match", "mist, fog", "颜色"]
    for bad in (["--categories", ""], ["--categories", " , "], ["--limit", "0"], ["--limit=-1"]):
        with pytest.raises(SystemExit) as caught:
            parse_arguments(bad)
        assert caught.value.code == 2
        assert "expected" in capsys.readouterr().err.splitlines()[-1]


CATEGORIES = ["a b", "a/b", "a_b", "🌧", "🌈", "हिन्दी", "颜色", "subject-add", "x" * 61, "x" * 62]


def test_a_category_stays_as_it_is_given(tmp_path: Path) -> None:
    row = {"input_file_name": "a.png", "instruction": "x", "pair_id": "p"}
    pairs = read(imagefolder(tmp_path, *({**row, "category": f" {c} "} for c in CATEGORIES)))
    assert pairs.categories == CATEGORIES
    assert not any(p.problem for p in pairs.pairs)
    assert [p.category for p in pairs.selected(Choice(categories=["🌧", "a/b"])).pairs] == [
        "a/b",
        "🌧",
    ]


def test_every_category_has_a_folder_of_its_own() -> None:
    folders = dict(zip(CATEGORIES, map(category_folder, CATEGORIES), strict=True))
    assert len(set(folders.values())) == len(CATEGORIES)
    for plain in ("a_b", "颜色", "subject-add"):
        assert folders[plain] == plain, "folders of earlier runs are found again"
    assert folders["a b"].startswith("a_b-")
    assert all("/" not in f and len(f.encode()) < 256 for f in folders.values())


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metadata\.jsonl"):
        read(tmp_path)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        read(tmp_path / "missing")


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(), max_size=5))
def test_any_row_is_a_pair_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> None:
    pair = only(imagefolder(tmp_path_factory.mktemp("rows"), row))
    assert pair.problem is not None or pair.instruction
    assert "/" not in category_folder(pair.category) and "/" not in pair.pair_id and pair.pair_id


# -- GEdit-Bench -------------------------------------------------------------


def gedit(folder: Path, pictures: list[str], rows: list[dict[str, Any]]) -> Path:
    """Pictures as task type/language/key."""
    for name in pictures:
        file = folder / "gedit" / "fullset" / f"{name}_SRCIMG.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png())
    table = folder / "gedit" / "metadata.jsonl"
    table.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return folder / "gedit"


def gedit_row(place: str, instruction: str = "x", **columns: Any) -> dict[str, Any]:
    names = dict(zip(("task_type", "instruction_language", "key"), place.split("/"), strict=True))
    return {**names, "instruction": instruction, **columns}


def test_gedits_layout_on_disk(tmp_path: Path) -> None:
    places = ["color_alter/en/k", "color_alter/cn/k", "text_change/en/k"]
    rows = [
        gedit_row(places[0], "make it blue", Intersection_exist=True),
        gedit_row(places[1], "变成蓝色", Intersection_exist=False),
        gedit_row(places[2], "write blue"),
    ]
    data = gedit(tmp_path, places, rows)
    pairs = read(data).pairs
    assert [p.problem for p in pairs] == [None] * 3
    assert [p.instruction for p in pairs] == ["make it blue", "变成蓝色", "write blue"]
    assert [f"{p.category}/{p.language}/k" for p in pairs] == places
    assert [p.source_images for p in pairs] == [
        (str(data / "fullset" / f"{place}_SRCIMG.png"),) for place in places
    ]
    assert [p.intersection_exist for p in pairs] == [True, False, True]
    assert [p.pair_id for p in pairs] == ["en_k", "cn_k", "en_k"]


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (True, True), ("True", True), ("true", True), (" TRUE ", True), (1, True), ("1", True),
        ("yes", True), (1.0, True), ("np.True_", True), ("t", True),
        (False, False), ("False", False), ("false", False), (0, False), ("0", False),
        ("no", False), (None, False), ("", False), (NAN, False), ("nan", False), (0.0, False),
        ("np.False_", False), ("N", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["Intersection_exist", "intersection_exist"])
def test_the_mark_of_the_intersection_is_read_as_tables_write_it(
    tmp_path: Path, value: object, read_as: bool, column: str
) -> None:
    row = {**gedit_row("a/en/k"), column: value}
    pair = only(gedit(tmp_path, ["a/en/k"], [row]))
    assert (pair.problem, pair.intersection_exist) == (None, read_as)


@pytest.mark.parametrize(
    "column", ["INTERSECTION_EXIST", "intersectionExist", "Intersection exist"]
)
def test_the_mark_of_the_intersection_counts_however_its_column_is_spelt(
    tmp_path: Path, column: str
) -> None:
    row = {**gedit_row("a/en/k"), column: "False"}
    assert only(gedit(tmp_path, ["a/en/k"], [row])).intersection_exist is False


@pytest.mark.parametrize("value", ["maybe", 2, -1, [True], {"a": 1}, "TrueFalse"])
def test_a_mark_that_cannot_be_read_fails_its_pair_alone(tmp_path: Path, value: object) -> None:
    rows = [gedit_row("a/en/k", Intersection_exist=value), gedit_row("a/en/m")]
    bad, good = read(gedit(tmp_path, ["a/en/k", "a/en/m"], rows)).pairs
    assert "Intersection_exist: expected true or false (found" in str(bad.problem)
    assert good.problem is None and good.intersection_exist is True


def test_what_fails_counts_where_its_row_places_it(tmp_path: Path) -> None:
    """A pair that cannot be used adds no language to data of another one."""
    rows = [
        gedit_row("a/cn/k", "", Intersection_exist=False),
        gedit_row("a/cn/gone", Intersection_exist=True),
        {"instruction": "x"},
    ]
    pairs = read(gedit(tmp_path, ["a/cn/k"], rows)).pairs
    assert all(p.problem for p in pairs)
    assert [(p.language, p.intersection_exist) for p in pairs] == [
        ("cn", False), ("cn", True), ("", None),
    ]  # fmt: skip
    row = {"input_file_name": "a.png", "instruction": "x", "language": "cn", "pair_id": "1"}
    folder = imagefolder(tmp_path, row, row, {**row, "instruction": ""}, "{no json")
    assert [p.language for p in read(folder).pairs] == ["cn", "cn", "cn", ""]
    of_no_language = only(imagefolder(tmp_path, {**row, "category": "sky", "language": 5}))
    assert of_no_language.problem and of_no_language.category == "sky"
    embedded = {"src_img_b64": "%%%", "edit_instruction_cn": "x"}
    pairs = read(re_edit(tmp_path, embedded, {}, "no row")).pairs
    assert [p.language for p in pairs] == ["cn", "", ""]


def test_gedit_takes_numbers_for_keys_and_types(tmp_path: Path) -> None:
    row = {"task_type": 3, "instruction_language": "en", "key": 17, "instruction": "x"}
    first, second = read(gedit(tmp_path, ["3/en/17"], [row, {**row, "key": 18.0}])).pairs
    assert (first.problem, first.category, first.pair_id) == (None, "3", "en_17")
    assert "'18' has no picture" in str(second.problem)
    hinted = gedit_row("3/en/17", "", edit_instruction="x")
    assert "did you mean 'edit_instruction'?" in str(only(gedit(tmp_path, [], [hinted])).problem)


def test_a_row_that_leaves_columns_out_means_every_picture_of_its_key(tmp_path: Path) -> None:
    places = ["color_alter/cn/k", "color_alter/en/k", "color_alter/en/other"]
    rows = [{"key": "k", "instruction": "x"}, {"key": "other", "instruction": "y"}]
    pairs = read(gedit(tmp_path, places, rows)).pairs
    assert [(p.language, p.instruction, p.problem) for p in pairs] == [
        ("cn", "x", None), ("en", "x", None), ("en", "y", None),
    ]  # fmt: skip


def test_a_row_without_its_picture_is_one_failed_pair(tmp_path: Path) -> None:
    rows = [
        gedit_row("color_alter/en/k"),
        gedit_row("color_alter/cn/k"),
        gedit_row("ps_human/en/gone"),
        {"key": "lost", "instruction": "x"},
        {"instruction": "x"},
    ]
    found, cn, gone, lost, nameless = read(gedit(tmp_path, ["color_alter/en/k"], rows)).pairs
    assert found.problem is None
    assert (cn.category, cn.language, cn.pair_id) == ("color_alter", "cn", "cn_k")
    assert "fullset/color_alter/cn/k_SRCIMG.png' is missing" in str(cn.problem)
    assert gone.category == "ps_human" and "is missing" in str(gone.problem)
    assert lost.category == "unsorted" and "fullset/*/*/lost_SRCIMG.png" in str(lost.problem)
    assert "key: is missing or empty" in str(nameless.problem)


def test_a_picture_that_no_row_knows_comes_last(tmp_path: Path) -> None:
    places = ["color_alter/en/k", "text_change/en/k"]
    known, unknown = read(gedit(tmp_path, places, [gedit_row(places[1])])).pairs
    assert (known.category, known.problem) == ("text_change", None)
    assert unknown.category == "color_alter"
    assert "'k' is not in metadata.jsonl" in str(unknown.problem)


# -- pictures ----------------------------------------------------------------


def test_a_picture_is_read_as_it_is_displayed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    known = inspect_image(tmp_path / "turned.jpg")
    assert (known.width, known.height) == (20, 40)
    assert read_image(tmp_path / "turned.jpg", known.sha256).size == (20, 40)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", "png"), ("I;16", "tif"), ("I;16B", "tif")])
def test_16_bit_grey_keeps_its_levels(tmp_path: Path, mode: str, suffix: str) -> None:
    file = tmp_path / f"grey.{suffix}"
    levels = np.array([[0, 255, 256, 0x8000, 0xFFFF]], ">u2" if mode == "I;16B" else "<u2")
    Image.frombytes(mode, (5, 1), levels.tobytes()).save(file)
    assert [read_image(file).getpixel((x, 0)) for x in range(5)] == [
        (v, v, v) for v in (0, 0, 1, 128, 255)
    ]  # fmt: skip


def test_a_transparent_16_bit_grey_lies_on_white(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16", (2, 1), np.array([0x2000, 0x3000], "<u2").tobytes())
    picture.save(tmp_path / "clear.png", transparency=0x2000)
    read = read_image(tmp_path / "clear.png")
    assert (read.getpixel((0, 0)), read.getpixel((1, 0))) == ((255,) * 3, (0x30,) * 3)


def test_a_picture_that_changed_since_it_was_checked_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png())
    known = inspect_image(file)
    file.write_bytes(png("blue"))
    with pytest.raises(InputError, match="changed during the run"):
        read_image(file, known.sha256)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new(mode, (9, 9)).save(file)
    assert read_image(file).mode == "RGB"


def test_a_column_that_may_be_the_picture_is_named(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("picture,instruction\na.png,add a cat\n", "utf-8")
    problem = str(only(table).problem)
    assert "input_file_name: is missing or empty; did you mean 'picture'?" in problem
    assert "`fields: {image: picture}`" in problem
    table.write_text("foto,instruction\na.png,add a cat\n", "utf-8")
    assert "The row has foto, instruction." in str(only(table).problem)


def test_a_file_that_is_no_table_is_not_wrong_at_row_0(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n", "utf-8")
    with pytest.raises(InputError, match=r"prompts.txt: not valid JSON: .*CSV, TSV, parquet"):
        read(prompts)


def test_what_is_chosen_of_is_all_that_the_data_has(tmp_path: Path) -> None:
    data = published_sets.magicbrush_table(tmp_path / "magicbrush")
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    try:
        read_pairs(data, tmp_path, Choice(subsets=[["multi-turn"]]))
        read_pairs(data, tmp_path, Choice(limit=1))
    finally:
        logger.remove(sink)
    has = "it has 3, of which 2 are run unless multi-turn is asked for.\n"
    assert lines == [
        f"2 pairs of magicbrush are chosen; {has}", f"1 pair of magicbrush is chosen; {has}",
    ]  # fmt: skip
