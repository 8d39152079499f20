"""The contact sheets of the examples: pictures keep their shape, and missing ones stop nothing."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import PROJECT

EXAMPLES = PROJECT / "examples"


def test_a_contact_sheet_keeps_shapes_and_survives_missing_pictures(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    (folder / "a_b_00.png").unlink()
    (folder / "a_b_01.png").write_bytes(b"torn")
    monkeypatch.setattr(sys, "argv", ["sheet", str(folder), str(tmp_path / "sheet.png")])
    names = runpy.run_path(str(EXAMPLES / "contact_sheet.py"))
    names["main"]()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.getpixel((20, 20)) == names["EMPTY"]
        side, gap = names["PICTURE"], names["GAP"]
        wide = 24  # its place: 1024 x 64
        x = gap + wide % names["COLUMNS"] * (side + gap)
        y = gap + wide // names["COLUMNS"] * (side + names["TEXT_HEIGHT"])
        assert sheet.getpixel((x + side // 2, y + 2)) == names["PAPER"]
        assert sheet.getpixel((x + side // 2, y + side // 2)) != names["PAPER"]


def test_a_sheet_of_edits_survives_missing_pictures(
    edited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(edited, tmp_path / "out"))
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    (folder / rows[0]["edited_image"]).unlink()
    rows[1]["source_images"] = ["/gone.png"]
    rows[2] |= {"edited_image": None, "scores": None, "outcome": "edit_failed"}
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["sheet", str(folder), str(tmp_path / "sheet.png")])
    names = runpy.run_path(str(EXAMPLES / "edit_sheet.py"))
    names["main"]()
    with Image.open(tmp_path / "sheet.png") as sheet:
        middle = names["GAP"] + names["PICTURE"] + 4 + 20
        assert sheet.getpixel((middle, names["GAP"] + 40)) == names["EMPTY"]
        # 64 x 48: paper above and below, the picture in the middle
        assert sheet.getpixel((names["GAP"] + 80, names["GAP"] + 4)) == names["PAPER"]
        assert sheet.getpixel((names["GAP"] + 80, names["GAP"] + 80)) != names["PAPER"]
