"""Data sets that are not there as a whole are refused: for each cause one line, and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.edit_benchmark.pairs import read_pairs
from apps.edit_benchmark.selection import Choice
from core.errors import InputError
from core.pictures.source_images import inspect_image
from tests.conftest import Project
from tests.edit_world import Bench, pair
from tests.published_sets import gedit_parquet, gedit_rows, imgedit, kris, parquet, picture, written

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4cac19622fc3ada9c0fdeadb33f88f367b541f38b89102a3f1261ac81fd5bcb5\nsize 84977953\n"
)


def pointers(folder: Path, pattern: str) -> None:
    """What a clone without Git LFS has in place of files."""
    found = list(folder.rglob(pattern))
    assert found
    for file in found:
        file.write_bytes(POINTER)


def gedit_without_tables(folder: Path) -> Path:
    pointers(gedit_parquet(folder), "*.parquet")
    return folder


def gedit_without_one_part(folder: Path) -> Path:
    for number in range(2):
        parquet(folder / "data" / f"train-{number:05d}-of-00002.parquet", gedit_rows())
    pointers(folder, "train-00001*")
    return folder


def imgedit_without_one_suite(folder: Path) -> Path:
    """Its other suites could be read."""
    pointers(imgedit(folder), "singleturn.json")
    return folder


def kris_without_lists(folder: Path) -> Path:
    pointers(kris(folder), "annotation.json")
    return folder


def re_edit_lines(folder: Path) -> Path:
    picture(folder / "re_edit.jsonl", POINTER)
    return folder / "re_edit.jsonl"


def imagefolder_csv(folder: Path) -> Path:
    picture(folder / "metadata.csv", POINTER)
    return folder


def only_archives(folder: Path) -> Path:
    picture(folder / "Benchmark.tar", POINTER)
    return folder


@pytest.mark.parametrize(
    "made",
    [
        gedit_without_tables,
        gedit_without_one_part,
        imgedit_without_one_suite,
        kris_without_lists,
        re_edit_lines,
        imagefolder_csv,
        only_archives,
    ],
)
def test_a_clone_without_its_large_files_is_told_as_what_it_is(
    made: Callable[[Path], Path], tmp_path: Path
) -> None:
    data = made(tmp_path / "data")
    with pytest.raises(InputError, match=r"is a Git LFS pointer and not the file: .*git lfs pull"):
        read_pairs(data, tmp_path / "work")


def test_pictures_that_are_pointers_are_one_error_and_not_one_for_each_pair(tmp_path: Path) -> None:
    data = imgedit(tmp_path / "data")
    pointers(data, "*.jpg")
    with pytest.raises(InputError, match=r"^data: 2 of 2 pictures are Git LFS pointers.*git lfs"):
        read_pairs(data, tmp_path / "work")


def test_a_part_that_was_fetched_can_be_run_without_the_others(tmp_path: Path) -> None:
    data = imgedit(tmp_path / "data")
    pointers(data / "singleturn" / "animal", "*.jpg")
    with pytest.raises(InputError, match=r"1 of 2 pictures are Git LFS pointers"):
        read_pairs(data, tmp_path / "work")
    [pair] = read_pairs(data, tmp_path / "work", Choice(categories=("adjust",))).pairs
    assert pair.problem is None


def test_a_source_that_is_a_pointer_is_no_damaged_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", POINTER)
    with pytest.raises(InputError, match=r"is a Git LFS pointer and not the picture"):
        inspect_image(tmp_path / "a.png")


def left_by_the_hub(data: Path) -> str:
    """As `hf download --local-dir` has it while a file comes."""
    file = data / ".cache" / "huggingface" / "download" / "data" / "aGVsbG8=.incomplete"
    picture(file, b"half of it")
    return file.name


def left_by_another_program(data: Path) -> str:
    picture(data / "data" / "train-00001-of-00002.parquet.part", b"half of it")
    return "train-00001-of-00002.parquet.part is not complete"


def later_parts_to_come(data: Path) -> str:
    (data / "data" / "train-00000-of-00001.parquet").rename(
        data / "data" / "train-00000-of-00003.parquet"
    )
    return "1 of the 3 parts of train; train-00001-of-00003.parquet is missing"


def later_parts_with_a_hash_to_come(data: Path) -> str:
    """As Emu Edit's test set and MagicBrush are named."""
    (data / "data" / "train-00000-of-00001.parquet").rename(
        data / "data" / "train-00001-of-00003-14580e6bdcdb8218.parquet"
    )
    return "1 of the 3 parts of train; train-00000-of-00003.parquet is missing"


def half_a_part(data: Path) -> str:
    file = data / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return "is cut short"


@pytest.mark.parametrize(
    "left",
    [
        left_by_the_hub,
        left_by_another_program,
        later_parts_to_come,
        later_parts_with_a_hash_to_come,
        half_a_part,
    ],
)
def test_a_download_that_has_not_ended_is_not_taken_for_the_whole(
    left: Callable[[Path], str], tmp_path: Path
) -> None:
    data = gedit_parquet(tmp_path / "data")
    assert len(read_pairs(data, tmp_path / "work").pairs) == 3
    said = left(data)
    with pytest.raises(InputError, match="download") as refusal:
        read_pairs(data, tmp_path / "work")
    assert said in str(refusal.value)


def test_the_hubs_cache_is_a_data_set_when_all_of_it_is_there(tmp_path: Path) -> None:
    """Its files are links, and those that still come lie beside what the links mean."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    table = gedit_parquet(tmp_path / "made") / "data" / "train-00000-of-00001.parquet"
    blobs.mkdir()
    shutil.copy(table, blobs / "d1")
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data" / table.name).symlink_to("../../../blobs/d1")
    assert len(read_pairs(snapshot, tmp_path / "work").pairs) == 3
    picture(blobs / "d2.incomplete", b"half of it")
    with pytest.raises(InputError, match=r"still being downloaded.*d2\.incomplete"):
        read_pairs(snapshot, tmp_path / "work")


def test_a_file_of_a_set_in_parts_can_be_read_alone(tmp_path: Path) -> None:
    file = parquet(tmp_path / "data" / "train-00000-of-00003.parquet", gedit_rows())
    assert len(read_pairs(file, tmp_path / "work").pairs) == 3


def test_a_run_on_pointers_ends_with_one_line_and_edits_nothing(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(i) for i in range(3)])
    pointers(bench.data, "*.png")
    run = bench.run()
    assert run.process.returncode != 0
    assert run.errors.count("Git LFS pointer") == 1 and "3 of 3 pictures" in run.errors
    assert not bench.results.exists() or bench.edits() == []


def test_a_picture_that_is_cut_short_in_a_table_fails_its_pair_alone_and_is_in_no_mean(
    project: Project,
) -> None:
    bench = Bench(project)
    rows = gedit_rows()
    noise = bench.project.folder / "noise.png"
    Image.effect_noise((200, 200), 50).convert("RGB").save(noise)
    whole = noise.read_bytes()
    rows[0]["input_image"] = {"bytes": whole[: len(whole) // 2], "path": None}
    rows[1]["input_image"] = rows[2]["input_image"] = {"bytes": whole, "path": None}
    parquet(bench.data / "train.parquet", rows)
    run = bench.run()
    assert run.process.returncode == 1, run.errors
    assert bench.outcomes() == ["edit_failed", "scored", "scored"]
    failed = bench.records()[0]
    assert "cut short" in failed["error"] and failed.get("scores") is None
    english = json.dumps(bench.summary())
    assert '"failed": 1' in english


def test_pictures_of_every_kind_are_sources(project: Project) -> None:
    """CMYK as printers have it, 16 bits of grey, turned by EXIF, a palette, one bit."""
    bench = Bench(project)
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "cmyk.jpg": (Image.new("CMYK", (64, 48), (0, 200, 200, 0)), {}),
        "grey16.png": (Image.new("I;16", (64, 48), 40_000), {}),
        "turned.jpg": (Image.new("RGB", (64, 48), "red"), {"exif": turned}),
        "palette.gif": (Image.new("P", (64, 48)), {}),
        "one.tif": (Image.new("1", (64, 48)), {}),
    }
    for name, (image, more) in kinds.items():
        image.save(bench.data / name, **more)
    rows = [{"file_name": name, "instruction": "make it night"} for name in kinds]
    written(bench.data / "metadata.jsonl", rows)
    run = bench.run()
    assert run.process.returncode == 0, run.errors
    assert bench.outcomes() == ["scored"] * len(kinds)
