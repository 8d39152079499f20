"""Edits are written once more as each benchmark's official scorer wants to find them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from apps.edit_benchmark.given_edits import find_edits
from apps.edit_benchmark.layout import official_names
from apps.edit_benchmark.layout_folder import LayoutFolder
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pair_result import PairResult
from core.errors import InputError
from core.tasks import Result

PLACES = {
    "complex_edit": "my-run/biology/1/en.png",
    "gedit": "my-run/fullset/biology/en/1.png",
    "imgedit": "my-run/1.png",
    "magicbrush": "my-run/1/1.png",
    "omnicontext": "my-run/fullset/biology/1.png",
    "rededit": "my-run/biology/biology-1.png",
    "kris": "results/my-run/biology/1.jpg",
    "rise": "outputs/my-run/images/biology/1.png",
}


def edited(folder: Path, key: str, status: str = "done", suffix: str = ".png") -> PairResult:
    """A pair whose source is a JPEG, and its edit."""
    source = folder / f"source {key}.jpg"
    Image.new("RGB", (40, 30), "white").save(source)
    edit = folder / "my run" / "edits" / f"{key}{suffix}"
    edit.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((32, 24), 80).convert("RGB").save(edit)
    pair = Pair(f"en_{key}", "biology", "x", (str(source),), given_id=key, metadata={"key": key})
    done = status in ("done", "skipped")
    return PairResult(pair, Result(0, key, status, str(edit) if done else None))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", official_names())
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_files_of_the_right_format_are_linked_and_others_converted(
    tmp_path: Path, name: str, suffix: str
) -> None:
    one = edited(tmp_path, "1", suffix=suffix)
    layout = LayoutFolder(tmp_path / "my run", name)
    assert layout.write([one, edited(tmp_path, "2", "failed")], []) == 1
    wanted = layout.folder / PLACES[name]
    if name == "rise" and suffix == ".jpg":  # which its script reads, too
        wanted = wanted.with_suffix(".jpg")
    edit = Path(str(one.edit.output_path))
    assert wanted.samefile(edit) == (wanted.suffix == suffix)
    assert Image.open(wanted).format == {".png": "PNG", ".jpg": "JPEG"}[wanted.suffix]
    source = wanted.with_name("1_SRCIMG.png")
    assert source.exists() == (name == "gedit")
    if name == "gedit":  # whose script resizes the edit to it
        assert Image.open(source).format == "PNG" and Image.open(source).size == (40, 30)
    pictures = [f for f in layout.folder.rglob("*") if f.suffix in (".png", ".jpg")]
    assert len(pictures) == 1 + (name == "gedit")
    assert find_edits(layout.folder, [replace(one.pair, data_set=name)]).find(one.pair) == wanted
    assert str(layout.folder) in layout.command and "my-run" in layout.command


def test_what_is_there_and_unchanged_is_not_written_again(tmp_path: Path) -> None:
    pairs = [edited(tmp_path, str(i)) for i in range(3)]
    layout = LayoutFolder(tmp_path / "my run", "kris")
    layout.write(pairs[:2], [])
    files = [layout.folder / f"results/my-run/biology/{i}.jpg" for i in range(3)]
    before = files[0].stat().st_ino
    files[1].unlink()  # as a run that was killed leaves it
    files[1].with_name(".partial-1.jpg").write_bytes(b"half")
    edit = Path(str(pairs[0].edit.output_path))
    layout.write(pairs, [])
    assert files[0].stat().st_ino == before and all(file.is_file() for file in files)
    assert not list(layout.folder.rglob(".partial*"))
    os.utime(edit, (1, 1))  # edited anew
    gone = replace(pairs[2], edit=Result(2, "2", "failed", None))
    layout.write([*pairs[:2], gone], [])
    assert files[0].stat().st_ino != before and not files[2].exists()


def test_one_name_for_two_pairs_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    pair = edited(tmp_path, "1").pair
    layout = LayoutFolder(tmp_path / "my run", "imgedit")
    with pytest.raises(InputError, match=r"'biology/en_1' and 'sky/en_1' would both be 1\.png"):
        layout.check([pair, replace(pair, category="sky")])
    layout.folder.mkdir()
    layout.check([pair])
    (layout.folder / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="was not written by this program"):
        layout.check([pair])
