"""Edits that exist are scored as they are: no editor is loaded, and what is missing is counted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from apps.edit_benchmark.command import main
from apps.edit_benchmark.given_edits import find_edits
from apps.edit_benchmark.layout import LAYOUTS
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError
from tests.edit_world import made_pair, settings
from tests.inline_backend import InlineBackend

PAIRS = [
    Pair(f"en_{key}", "color_alter", "make it night", given_id=key, metadata={"key": key})
    for key in ("k1", "k2", "k3")
]


def put(file: Path, colour: str = "navy") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), colour).save(file)
    return file


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        ("gedit", "fullset/color_alter/en/{}.png"),
        ("imgedit", "{}.png"),
        ("kris", "color_alter/{}.jpg"),
        ("rise", "images/color_alter/{}.jpeg"),
        ("omnicontext", "fullset/color_alter/{}.png"),
        ("rededit", "color_alter/color_alter-{}.png"),
        ("anyedit", "color_alter-1500/{}.png"),
        ("ours", "edits/color_alter/en_{}.webp"),
    ],
)
@pytest.mark.parametrize("given", ["model", "", "inside"])
def test_edits_are_found_by_the_names_of_each_benchmark(
    tmp_path: Path, layout: str, place: str, given: str
) -> None:
    """The user names the folder of a model, of models, or of the pictures themselves."""
    files = [put(tmp_path / "model" / place.format(key)) for key in ("k1", "k3")]
    below = "model/" + place.partition("/")[0] if "/" in place and layout != "kris" else "model"
    pairs = [replace(pair, data_set=layout) for pair in PAIRS]
    found = find_edits(tmp_path / {"inside": below}.get(given, given), pairs)
    assert found.name == layout
    assert [found.find(pair) for pair in (PAIRS[0], PAIRS[2])] == files
    missing = found.find(PAIRS[1])
    assert isinstance(missing, InputError) and f"is missing in {tmp_path / 'model'}" in str(missing)


I2E = [
    Pair(str(n), task, "x", given_id=str(n), data_set="i2ebench", metadata={"image": image})
    for n, (task, image) in enumerate([("Counting", "COCO_1.jpg"), ("Deblurring", "0001.png")])
]


@pytest.mark.parametrize(
    "given", ["", "EditResult_ori", "EditResult_ori/Counting", "EditResult_ori/Counting/mine"]
)
def test_edits_are_found_where_the_models_name_stands_inside_of_their_place(
    tmp_path: Path, given: str
) -> None:
    root = tmp_path / "EditBench"
    files = [
        put(root / f"EditResult_ori/{pair.category}/mine/{pair.metadata['image']}") for pair in I2E
    ]
    put(root / "EditResult/Counting/mine/COCO_1.jpg")  # of the other wordings
    found = find_edits(root / given, I2E)
    assert (found.start, found.name, found.model) == (root, "i2ebench", "mine")
    assert [found.find(pair) for pair in I2E] == files
    assert found.line == f"edits of mine in {root} (i2ebench)"
    diverse = replace(I2E[0], subsets=("diverse",))
    assert found.find(diverse) == root / "EditResult/Counting/mine/COCO_1.jpg"
    lost = found.find(replace(I2E[0], metadata={"image": "COCO_2.jpg"}))
    assert f"EditResult_ori/Counting/mine/COCO_2.jpg is missing in {root}" in str(lost)


def test_a_model_is_named_by_one_of_its_folders(tmp_path: Path) -> None:
    """Wherever its name stands; another that has fewer edits is not passed over in silence."""
    for model, pairs in (("mine", I2E), ("other", I2E[:1])):
        for pair in pairs:
            put(tmp_path / f"EditResult_ori/{pair.category}/{model}/{pair.metadata['image']}")
    for given in ("", "EditResult_ori", "EditResult_ori/Counting"):
        with pytest.raises(
            InputError, match=r"several models \(mine, other\); name a folder of one"
        ):
            find_edits(tmp_path / given, I2E)
    for model in ("mine", "other"):
        assert find_edits(tmp_path / f"EditResult_ori/Counting/{model}", I2E).model == model


@pytest.mark.parametrize(
    ("layout", "deep"),
    [("complex_edit", "real/C8"), ("gedit", "fullset/real/en"), ("omnicontext", "fullset/real")],
)
def test_a_folder_of_pictures_is_one_however_deep_its_layout_has_it(
    tmp_path: Path, layout: str, deep: str
) -> None:
    """As the scripts of Complex-Edit are given it."""
    pairs = [Pair(f"{n:04d}_C8", "real", "x", data_set=layout) for n in range(2)]
    files = [put(tmp_path / f"mine/{LAYOUTS[layout].place(pair)}.png") for pair in pairs]
    found = find_edits(tmp_path / "mine" / deep, pairs)
    assert (found.name, found.start) == (layout, tmp_path / "mine")
    assert [found.find(pair) for pair in pairs] == files


def test_pictures_with_nothing_above_them_are_those_of_the_only_folder(tmp_path: Path) -> None:
    """Complex-Edit's eval.py takes any folder as the edits of one split and complexity."""
    pairs = [Pair(f"{n:04d}_C8", "real", "x", data_set="complex_edit") for n in range(2)]
    files = [put(tmp_path / f"out/{n:04d}.png") for n in range(2)]
    found = find_edits(tmp_path / "out", pairs)
    assert [found.find(pair) for pair in pairs] == files
    other = replace(pairs[0], pair_id="0000_C7")  # whose edit may be either's
    with pytest.raises(InputError, match=r"has none of these edits: real/C8/0000\.png"):
        find_edits(tmp_path / "out", [*pairs, other])


def test_one_picture_is_never_the_edit_of_two_languages(tmp_path: Path) -> None:
    """Where a folder of one language has names that the other's would have, too."""
    english = Pair("en_k1", "add", "x", data_set="gedit", metadata={"key": "k1"})
    chinese = replace(english, pair_id="cn_k1", language="cn")
    edit = put(tmp_path / "mine/fullset/add/en/k1.png")
    found = find_edits(edit.parent, [english, chinese])
    assert found.find(english) == edit
    assert "fullset/add/cn/k1.png is missing" in str(found.find(chinese))


@pytest.mark.parametrize(
    ("layout", "place"), [("rededit", "add/add-1.png"), ("rise", "images/add/1.png")]
)
def test_edits_of_the_second_language_have_the_names_of_the_first_in_a_folder_of_their_own(
    tmp_path: Path, layout: str, place: str
) -> None:
    """As scripts leave them that are run with either language: one folder for each."""
    english = Pair("1", "add", "x", given_id="1", data_set=layout)
    chinese = replace(english, pair_id="1_cn", given_id="1_cn", language="cn")
    edit = put(tmp_path / "edited_cn" / place)
    assert find_edits(tmp_path / "edited_cn", [chinese]).find(chinese) == edit
    found = find_edits(tmp_path / "edited_cn", [english, chinese])  # nothing says which it is
    assert found.find(english) == edit and isinstance(found.find(chinese), InputError)
    layout_of = LAYOUTS[layout].place(chinese)
    own = put(tmp_path / "edited_cn" / f"{layout_of}.png")
    assert find_edits(tmp_path / "edited_cn", [chinese]).find(chinese) == own


def test_edits_are_found_though_most_pairs_have_none(tmp_path: Path) -> None:
    """As where one task of many was edited: its pairs may be the last of thousands."""
    made = [("Counting", n) for n in range(900)] + [("Deblurring", n) for n in range(3)]
    pairs = [replace(I2E[0], category=c, metadata={"image": f"{n}.png"}) for c, n in made]
    edit = put(tmp_path / "EditBench/EditResult_ori/Deblurring/mine/1.png")
    for given in (edit.parent, tmp_path / "EditBench"):
        found = find_edits(given, pairs)
        assert (found.model, found.find(pairs[901])) == ("mine", edit)


def test_i2ebenchs_rounds_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    second = Pair(
        "1_round2", "Counting", "x", given_id="1_round2", data_set="i2ebench",
        metadata={"image": "COCO_1.jpg", "round": 2}, follows="Counting/1",
    )  # fmt: skip
    pairs = [I2E[0], second, replace(second, pair_id="1_round2_div", subsets=("diverse",))]
    files = [
        put(tmp_path / folder / "Counting/mine/COCO_1.jpg")
        for folder in ("EditResult_ori", "EditResult_ori_2nd", "EditResult_2nd")
    ]
    for given in ("", "EditResult_ori_2nd/Counting/mine"):
        found = find_edits(tmp_path / given, pairs)
        assert [found.find(pair) for pair in pairs] == files


def test_emu_edits_splits_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    pairs = [
        Pair(f"{split}_0", "add", "x", data_set="emu_edit", subsets=(split,), metadata={"idx": 0})
        for split in ("test", "validation")
    ]
    files = [put(tmp_path / f"results/emu_{split}/mine/0.png") for split in ("test", "val")]
    for given in ("results", "results/emu_val", "results/emu_val/mine"):
        found = find_edits(tmp_path / given, pairs)
        assert [found.find(pair) for pair in pairs] == files


def test_a_folder_without_such_edits_says_what_it_looked_for(tmp_path: Path) -> None:
    put(tmp_path / "other.png")
    own = [replace(pair, data_set="gedit") for pair in PAIRS]
    with pytest.raises(InputError, match=r"none of these edits: fullset/color_alter/en/k1\.png"):
        find_edits(tmp_path, own)
    with pytest.raises(InputError, match="is not a folder"):
        find_edits(tmp_path / "nothing", PAIRS)


def test_edits_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    for model in ("a", "b"):
        put(tmp_path / model / "fullset/color_alter/en/k1.png")
    with pytest.raises(InputError, match=r"several folders \(a, b\); name one"):
        find_edits(tmp_path, PAIRS)


def test_edits_in_a_folder_are_scored_without_an_editor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, made = tmp_path / "pairs", tmp_path / "made"
    rows = []
    for name in ("a", "b", "c"):
        put(data / f"{name}.png", "white")
        rows.append({"input_file_name": f"{name}.png", "instruction": "x", "category": "sky"})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edits = [put(made / f"images/sky/{name}.png") for name in ("a", "c")]
    config = tmp_path / "bench.yaml"
    nowhere = {"model": str(tmp_path / "there is no such model")}
    config.write_text(yaml.safe_dump(settings(data=str(data), device="cpu", editor=nowhere)))
    command = ["--config", str(config), "--output-dir", str(tmp_path / "out"), "--no-gallery"]
    command += ["--score-only", str(made)]
    main([*command, "--dry-run"], InlineBackend())
    assert "Plan for scores: 2 new" in capsys.readouterr().out and not (tmp_path / "out").exists()
    for expected in (2, 0):  # verdicts, then none: what is scored is not scored again
        backend = InlineBackend()
        assert main(command, backend) == 1
        results = tmp_path / "out" / "pairs-made"
        records = [json.loads(line) for line in (results / "results.jsonl").open()]
        assert [r["outcome"] for r in records] == ["scored", "edit_failed", "scored"]
        assert [r["edited_image"] for r in records] == [str(edits[0]), None, str(edits[1])]
        assert "images/sky/b.png is missing" in records[1]["error"]
        printed = capsys.readouterr()
        assert f"editor: edits in {made} (rise)" in printed.out
        assert ("Plan for scores: 2 new" in printed.err) == (expected == 2)
    assert not (results / "edits").exists()
    summary = json.loads((results / "summary.json").read_text())
    assert summary["overall"]["failed"] == 1 and summary["overall"]["scored"] == 2


def test_edits_that_the_data_brings_are_scored_as_they_are(tmp_path: Path) -> None:
    given = put(tmp_path / "given.jpg")
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(3)]
    brings = [
        Pair(**{**vars(pair), "edited_image": str(file)})
        for pair, file in zip(pairs, [given, tmp_path / "gone.png", ""], strict=True)
    ]
    values = load_benchmark_settings(settings(device="cpu"))
    with EditBenchmark(values, tmp_path / "out", backend=InlineBackend()) as run:
        run.prepare(PairSet("brought", brings))
        first, second, third = run.run()
    assert first.edit.output_path == str(given) and first.score is not None
    assert second.edit.error == f"edited_image: '{tmp_path / 'gone.png'}' is missing."
    assert third.edit.status == "done" and third.score is not None
