"""Small data sets with made-up contents, each in the layout in which it is published."""

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

SIZE = (8, 6)


def png(colour: str = "red") -> bytes:
    stream = BytesIO()
    Image.new("RGB", SIZE, colour).save(stream, "PNG")
    return stream.getvalue()


RED, BLUE, GREEN = png("red"), png("blue"), png("green")


def cell(data: bytes | None) -> dict[str, Any] | None:
    """A picture as `datasets` writes it into a table."""
    return None if data is None else {"bytes": data, "path": None}


def picture(file: Path, data: bytes = RED) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def written(file: Path, value: Any) -> Path:
    """JSON, or JSONL by the name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in value)
    else:
        text = json.dumps(value, ensure_ascii=False)
    file.write_text(text, "utf-8")
    return file


def parquet(file: Path, rows: list[dict[str, Any]], group: int = 2) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=group)
    return file


def arrow(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """What `save_to_disk` leaves: streams, with what it says of them beside."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    file = str(folder / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(file, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    written(folder / "state.json", {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    written(folder / "dataset_info.json", {"features": {}})
    return folder


# -- each data set ---------------------------------------------------------------


def gedit_rows() -> list[dict[str, Any]]:
    def row(task: str, key: str, language: str, text: str, both: bool, data: bytes) -> Any:
        return {
            "task_type": task, "key": key, "instruction": text, "instruction_language": language,
            "input_image": cell(data), "input_image_raw": cell(GREEN), "Intersection_exist": both,
        }  # fmt: skip

    return [
        row("background_change", "aa01", "en", "make it night", True, RED),
        row("background_change", "aa01", "cn", "变成夜晚", True, RED),
        row("text_change", "bb02", "en", "write OPEN", False, BLUE),
    ]


def gedit_parquet(folder: Path) -> Path:
    parquet(folder / "data" / "train-00000-of-00001.parquet", gedit_rows())
    return folder


def gedit_arrow(folder: Path) -> Path:
    return arrow(folder, gedit_rows())


def gedit_script(folder: Path) -> Path:
    """Its example's folder, with the table that has the instructions."""
    for row in gedit_rows():
        place = folder / "fullset" / row["task_type"] / row["instruction_language"]
        picture(place / f"{row['key']}_SRCIMG.png")
        picture(place / f"{row['key']}.png")
    return gedit_parquet(folder)


def imgedit(folder: Path) -> Path:
    basic = {
        "11": {"id": "animal/1.jpg", "prompt": "make it night", "edit_type": "background"},
        "12": {"id": "daily object/2.jpg", "prompt": "make it day", "edit_type": "adjust"},
    }
    written(folder / "singleturn" / "singleturn.json", basic)
    written(folder / "singleturn" / "judge_prompt.json", {"adjust": "How well was it adjusted?"})
    picture(folder / "singleturn" / "animal" / "1.jpg")
    picture(folder / "singleturn" / "daily object" / "2.jpg")
    written(folder / "hard" / "UGE_edit.json", {"1": {"id": "3.jpg", "prompt": "remove the tree"}})
    picture(folder / "hard" / "original_images" / "3.jpg")
    turns = {"1": {"id": "4.jpg", "turn1": "all in green", "turn2": "add a cup", "turn3": "a hat"}}
    written(folder / "multiturn" / "content_memory.json", turns)
    picture(folder / "multiturn" / "4.jpg")
    return folder


def kris(folder: Path) -> Path:
    base = folder / "KRIS_Bench"
    several = {"ori_img": ["1-1.jpg", "1-3.JPG"], "gt_img": "1-2.jpg", "ins_en": "what comes next?"}
    written(base / "temporal_prediction" / "annotation.json", {"1": {**several, "explain_en": ""}})
    for name in ("1-1.jpg", "1-2.jpg", "1-3.JPG"):
        picture(base / "temporal_prediction" / name)
    one = {"ori_img": "7.png", "gt_img": "", "ins_en": "let it melt", "explain_en": "ice melts"}
    written(base / "medicine" / "annotation.json", {"7": one})
    picture(base / "medicine" / "7.png")
    return folder


def rise(folder: Path) -> Path:
    rows = [
        {"index": "temporal_reasoning_1", "category": "temporal_reasoning",
         "instruction": "a year later", "image": "temporal_reasoning_images/1.png",
         "reference": "a rotten banana"},
        {"index": "logical_reasoning_2", "category": "logical_reasoning",
         "instruction": "solve it", "image": ["logical_reasoning_images/2.png"],
         "reference_img": "logical_reasoning_images/2_ref.png",
         "instruction_chinese": "解开它"},
    ]  # fmt: skip
    written(folder / "data" / "data_total.json", rows)
    for name in ("temporal_reasoning_images/1", "logical_reasoning_images/2"):
        picture(folder / "data" / f"{name}.png")
    picture(folder / "data" / "logical_reasoning_images" / "2_ref.png")
    return folder


def magicbrush_disk(folder: Path) -> Path:
    def turn(before: str, number: int, text: str) -> dict[str, str]:
        return {
            "input": f"100-{before}.png", "mask": f"100-mask{number}.png",
            "output": f"100-output{number}.png", "instruction": text,
        }  # fmt: skip

    turns = [
        turn("input", 1, "make it night"),
        turn("output1", 2, "add a moon"),
        turn("output2", 3, "add a star"),
    ]
    written(folder / "dev" / "edit_sessions.json", {"100": turns, "200": turns[:1]})
    captions = {f"100-output{n}.png": f"caption {n}" for n in (1, 2, 3)}
    written(folder / "dev" / "local_descriptions.json", {"100": captions})
    for name in ("input", "mask1", "output1", "mask2", "output2", "mask3", "output3"):
        picture(folder / "dev" / "images" / "100" / f"100-{name}.png")
    return folder


def magicbrush_table(folder: Path) -> Path:
    rows = [
        {"img_id": "100", "turn_index": n, "source_img": cell(RED), "mask_img": cell(BLUE),
         "instruction": f"turn {n}", "target_img": cell(GREEN)}
        for n in (1, 2)
    ]  # fmt: skip
    parquet(folder / "data" / "dev-00000-of-00001.parquet", rows)
    return folder


def emu_edit(folder: Path) -> Path:
    rows = [
        {"instruction": "add a hat", "image": cell(RED), "task": "add", "split": split, "idx": 0,
         "hash": "4f", "input_caption": "a man", "output_caption": "a man with a hat"}
        for split in ("validation", "test")
    ]  # fmt: skip
    for row in rows:
        parquet(folder / "data" / f"{row['split']}-00000-of-00001.parquet", [row])
    return folder


def i2ebench(folder: Path) -> Path:
    base = folder / "EditData"
    row = {
        "image": "0000.jpg", "mask": "0000.png", "ori_exp": "make it brown", "div_exp": "brown it",
        "type": "animal",
    }  # fmt: skip
    written(base / "RegionAccuracy" / "RegionAccuracy.json", {"0": row})
    picture(base / "RegionAccuracy" / "input" / "0000.jpg")
    picture(base / "RegionAccuracy" / "mask" / "0000.png")
    hazy = {"image": "0001.png", "ori_exp": "remove the haze", "div_exp": "", "type": "global"}
    written(base / "HazeRemoval" / "HazeRemoval.json", {"1": hazy})
    picture(base / "HazeRemoval" / "input" / "0001.png")
    picture(base / "HazeRemoval" / "gt" / "0001.png")
    asked = {
        "image": "COCO_1.jpg", "ori_exp": "add a cat", "div_exp": "", "type": "Animal",
        "Evaluation": "How many cats are there?", "Answer": "One",
    }  # fmt: skip
    written(base / "Counting" / "Counting.json", {"1": asked})
    for number, animal in ((2, "dog"), (3, "cow")):
        later = {**asked, "ori_exp": f"add a {animal}", "div_exp": f"a {animal}, please"}
        later["Evaluation"] = f"How many {animal}s are there?"
        written(base / "Counting" / f"Counting_{number}nd.json", {"1": later})
    picture(base / "Counting" / "input" / "COCO_1.jpg")
    style = {"image": "0001.jpg", "ori_exp": "make it oil", "style": "an image with oil style"}
    written(base / "StyleAlteration" / "StyleAlteration.json", {"1": style})
    picture(base / "StyleAlteration" / "input" / "0001.jpg")
    return folder


def anyedit_json(folder: Path) -> Path:
    row = {
        "edit": "make the sky dark", "edited object": "sky", "input": "a scene",
        "output": "a dark scene", "edit_type": "color_alter", "visual_input": "None",
        "image_file": "a.jpg", "edited_file": "b.png",
    }  # fmt: skip
    written(folder / "edit.json", [row, {**row, "visual_input": "v.jpg", "edit_type": "visual"}])
    for name in ("a.jpg", "b.png", "v.jpg"):
        picture(folder / name)
    return folder


def anyedit_bench(folder: Path) -> Path:
    """As its test split is unpacked: names begin two folders above each type's JSON file."""
    for kind, more in (("color_alter", {}), ("visual_depth", {"visual_input": "depth"})):
        base = f"anybench/{kind}"
        row = {
            "edit": "make it dark", "edit_type": kind, "image_file": f"{base}/input_img/a.jpg",
            "edited_file": f"{base}/edited_img/a.png", "input": "a scene", "output": "a dark scene",
        }  # fmt: skip
        row |= {name: f"{base}/{sub}/a.png" for name, sub in more.items()}
        written(folder / base / "edit_result.json", [row])
        for name in ("input_img/a.jpg", "edited_img/a.png", "depth/a.png"):
            picture(folder / base / name)
    return folder


def anyedit_table(folder: Path) -> Path:
    rows = [
        {"image_id": name, "edit_instruction": "remove it", "edit_type": "remove",
         "image_file": cell(RED), "edited_file": cell(BLUE), "visual_input": cell(visual),
         "input": "a", "output": "b"}
        for name, visual in (("first", None), ("second", GREEN))
    ]  # fmt: skip
    parquet(folder / "data" / "validation-00000-of-00001.parquet", rows)
    return folder


def rededit(folder: Path) -> Path:
    rows = [
        {"id": "1", "source": "redbench/add/add-1.png", "a_to_b_instructions": "加一顶帽子",
         "a_to_b_instructions_eng": "add a hat", "task": "add"},
        {"id": "2", "source": "redbench/add/add-1.png", "a_to_b_instructions": "去掉它",
         "a_to_b_instructions_eng": "", "task": "remove"},
    ]  # fmt: skip
    written(folder / "redbench" / "redbench.jsonl", rows)
    picture(folder / "redbench" / "add" / "add-1.png")
    return folder


def complex_rows() -> list[dict[str, Any]]:
    steps = ["add a hat", "make it night"]
    edit = {
        "sequence": [{"instruction": step} for step in steps],
        "compound": [
            {"compound_instruction": ", and ".join(steps[: i + 1])} for i in range(len(steps))
        ],
    }
    return [{"image": cell(RED), "edit": edit}, {"image": cell(BLUE), "edit": edit}]


def complex_table(folder: Path) -> Path:
    parquet(folder / "data" / "test_real-00000-of-00001.parquet", complex_rows())
    return folder


def complex_folder(folder: Path) -> Path:
    rows = [
        {"file_name": "images/0000.png", "edit": json.dumps(row["edit"])}
        for row in complex_rows()[:1]
    ]
    written(folder / "test" / "syn" / "metadata.jsonl", rows)
    picture(folder / "test" / "syn" / "images" / "0000.png")
    return folder


def omnicontext(folder: Path) -> Path:
    rows = [
        {"key": key, "task_type": kind, "instruction": "bring them together",
         "instruction_language": "en", "input_images": [cell(RED), cell(BLUE)]}
        for key, kind in (("k1", "scene_character"), ("k2", "multi_object"))
    ]  # fmt: skip
    parquet(folder / "data" / "train-00000-of-00001.parquet", rows)
    return folder


def editscore_bench(folder: Path) -> Path:
    def row(dimension: str, *keys: str) -> dict[str, Any]:
        return {
            "key": list(keys), "task_type": "color_alter", "dimension": dimension,
            "instruction": "make it blue", "input_image": cell(RED),
            "output_images": [cell(BLUE), cell(GREEN)],
        }  # fmt: skip

    rows = [row("overall", "k1", "k2"), row("consistency", "k2", "k1"), row("overall", "k1", "k3")]
    return arrow(folder, rows)


def editreward_bench(folder: Path) -> Path:
    def row(name: str, two: str, ranking: str) -> dict[str, Any]:
        return {
            "id": name, "instruction": "make it blue", "source_image": cell(RED),
            "candidate_1": cell(png(f"#0000{ord(two[0]):02x}")),
            "candidate_2": cell(png(f"#0000{ord(two[-1]):02x}")),
            "ranking": ranking, "comparison_type": two, "model_1": f"model {two[0]}",
            "model_2": f"model {two[-1]}", "score_1": 7.5, "score_2": 3.0,
        }  # fmt: skip

    pair = row("0123456789ab", "AvsB", "A=B=Good")
    parquet(folder / "2pair" / "train-00000-of-00001.parquet", [{**pair, "dataset": "2pair"}])
    three = [
        row("g7_AB", "AvsB", "A>B"), row("g7_AC", "AvsC", "C>A"), row("g7_BC", "BvsC", "C>B"),
    ]  # fmt: skip
    parquet(
        folder / "3pair" / "train-00000-of-00001.parquet",
        [{**each, "dataset": "3pair"} for each in three],
    )
    return folder


def re_edit_rows() -> list[dict[str, Any]]:
    return [
        {"subset": "physical", "src_img_b64": base64.b64encode(RED).decode(),
         "edit_instruction_en": "melt it", "edit_instruction_cn": "融化它"},
        {"subset": "causal", "src_img_b64": base64.b64encode(BLUE).decode(),
         "edit_instruction_cn": "点燃它"},
    ]  # fmt: skip


def re_edit_list(folder: Path) -> Path:
    return written(folder / "re_edit.json", re_edit_rows())


def re_edit_lines(folder: Path) -> Path:
    return written(folder / "re_edit.jsonl", re_edit_rows())


def re_edit_wrapped(folder: Path) -> Path:
    return written(folder / "re_edit.json", {"version": 1, "data": re_edit_rows(), "by": "us"})


def hf_lines(folder: Path) -> Path:
    rows = [{"file_name": "0.png", "instruction": "make it night"}]
    written(folder / "train" / "metadata.jsonl", rows)
    picture(folder / "train" / "0.png")
    return folder


def hf_csv(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = 'file_name,instruction,category\n0.png,"make it night, please",sky\n'
    (folder / "metadata.csv").write_text(text, "utf-8")
    picture(folder / "0.png")
    return folder


def hf_metadata_parquet(folder: Path) -> Path:
    parquet(folder / "metadata.parquet", [{"file_name": "0.png", "instruction": "make it night"}])
    picture(folder / "0.png")
    return folder


def hf_rows() -> list[dict[str, Any]]:
    return [{"image": cell(RED), "instruction": "make it night", "category": "sky"}]


def hf_shards(folder: Path) -> Path:
    parquet(folder / "data" / "test-00000-of-00001.parquet", hf_rows())
    return folder


def hf_saved(folder: Path) -> Path:
    """A saved dictionary of splits."""
    written(folder / "dataset_dict.json", {"splits": ["test"]})
    arrow(folder / "test", hf_rows())
    return folder


def own(folder: Path) -> Path:
    """This project's own form."""
    rows = [{"input_file_name": "a.png", "instruction": "make it night", "category": "sky"}]
    written(folder / "metadata.jsonl", rows)
    picture(folder / "a.png")
    return folder


BUILDERS: dict[str, list[Callable[[Path], Path]]] = {
    "gedit": [gedit_parquet, gedit_arrow, gedit_script],
    "imgedit": [imgedit],
    "kris": [kris],
    "rise": [rise],
    "magicbrush": [magicbrush_disk, magicbrush_table],
    "emu_edit": [emu_edit],
    "i2ebench": [i2ebench],
    "anyedit": [anyedit_json, anyedit_bench, anyedit_table],
    "rededit": [rededit],
    "complex_edit": [complex_table, complex_folder],
    "omnicontext": [omnicontext],
    "editscore_bench": [editscore_bench],
    "editreward_bench": [editreward_bench],
    "re_edit": [re_edit_list, re_edit_lines, re_edit_wrapped],
    "imagefolder": [hf_lines, hf_csv, hf_metadata_parquet, hf_shards, hf_saved, own],
}
"""By the name of its form."""
