"""Edits on one sheet: `python examples/edit_sheet.py FOLDER SHEET.png`.

FOLDER holds the results of a benchmark or of edit_images.py; each source stands beside what became
of it, over the instruction and its scores. Of a benchmark the first EACH pairs of every category
are shown, else the first MOST edits. Pictures keep their shape; one that
is gone or damaged leaves its place empty.
"""

import argparse
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS = 3
EACH = 3  # pairs of a category
MOST = 60  # edits that have no scores
PICTURE = 160  # pixels a side on the sheet
GAP = 16
TEXT_HEIGHT = 40
LINE_HEIGHT = 16
PAPER, INK, FAINT = (252, 251, 248), (40, 40, 44), (120, 120, 126)
EMPTY = (236, 234, 228)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """EACH lines of results.jsonl per category; of edits without scores, what the record says."""
    seen: Counter[str] = Counter()
    chosen = []
    for line in (folder / "results.jsonl").read_text("utf-8").split("\n"):
        if not line:
            continue
        record = json.loads(line)
        if "category" not in record:
            return edits_of(folder)
        seen[record["category"]] += 1
        if seen[record["category"]] <= EACH:
            chosen.append(record)
    return chosen


def edits_of(folder: Path) -> list[dict[str, Any]]:
    """The first MOST edits of an output folder, as a benchmark's results have them."""
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # this project, uninstalled
    from apps.gallery.reading import read_folder

    edits = [item for item in read_folder(folder).items if item.kind == "edit"]
    return [
        {
            "source_images": [os.path.join(folder, path) for path in item.sources],
            "edited_image": item.file,
            "instruction": str(item.task.get("instruction")),
            "scores": None,
            "outcome": "" if item.state == "done" else item.state,
        }
        for item in edits[:MOST]
    ]


def draw_sheet(folder: Path, records: list[dict[str, Any]]) -> Image.Image:
    """One cell per record, COLUMNS in a line."""
    cell = 2 * PICTURE + GAP
    lines = -(-len(records) // COLUMNS)
    height = lines * (PICTURE + TEXT_HEIGHT) + GAP
    sheet = Image.new("RGB", (COLUMNS * (cell + GAP) + GAP, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for number, record in enumerate(records):
        x = GAP + number % COLUMNS * (cell + GAP)
        y = GAP + number // COLUMNS * (PICTURE + TEXT_HEIGHT)
        source = next(iter(record["source_images"]), None)
        edited = record["edited_image"]
        _paste(sheet, Path(source) if source else None, x, y)
        _paste(sheet, folder / edited if edited else None, x + PICTURE + 4, y)
        draw.text((x, y + PICTURE + 2), record["instruction"], fill=INK, font=font)
        draw.text((x, y + PICTURE + 2 + LINE_HEIGHT), _verdict(record), fill=FAINT, font=font)
    return sheet


def _paste(sheet: Image.Image, file: Path | None, x: int, y: int) -> None:
    """A picture in a square, whole and in its own shape; an empty square where there is none."""
    picture = Image.new("RGB", (PICTURE, PICTURE), EMPTY)
    with suppress(OSError, ValueError, Image.DecompressionBombError):
        if file is not None:
            with Image.open(file) as found:
                upright = ImageOps.exif_transpose(found).convert("RGB")
                picture = ImageOps.pad(upright, (PICTURE, PICTURE), color=PAPER)
    sheet.paste(picture, (x, y))


def _verdict(record: dict[str, Any]) -> str:
    scores = record["scores"]
    if not scores:
        return str(record["outcome"])
    return "  ".join(f"{name} {value:.1f}" for name, value in scores.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheet", type=Path)
    options = parser.parse_args()
    sheet = draw_sheet(options.folder, read_records(options.folder))
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
