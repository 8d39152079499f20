"""All pictures of a run on one sheet: `python examples/contact_sheet.py FOLDER SHEET.png`.

FOLDER is a run's output folder; each picture stands over its tweet and the prompt or instruction
it was made from. Pictures keep their shape; one that is gone or damaged leaves its place empty.
"""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS = 6
PICTURE = 192  # pixels a side on the sheet
GAP = 16
TEXT_HEIGHT = 104
LINE_HEIGHT = 13
CHARACTERS = 34  # in a line under a picture
PAPER, INK, FAINT = (252, 251, 248), (40, 40, 44), (120, 120, 126)
EMPTY = (236, 234, 228)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of metadata.jsonl."""
    lines = (folder / "metadata.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def draw_sheet(folder: Path, rows: list[dict[str, Any]]) -> Image.Image:
    """One cell per row, COLUMNS in a line."""
    width = COLUMNS * (PICTURE + GAP) + GAP
    cell_height = PICTURE + TEXT_HEIGHT
    lines = -(-len(rows) // COLUMNS)
    sheet = Image.new("RGB", (width, lines * cell_height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x = GAP + number % COLUMNS * (PICTURE + GAP)
        y = GAP + number // COLUMNS * cell_height
        sheet.paste(_fitted(folder / row["file_name"], PICTURE), (x, y))
        _write(draw, row, x, y + PICTURE + 4)
    return sheet


def _fitted(file: Path, side: int) -> Image.Image:
    """A picture in a square, whole and in its own shape; an empty square where there is none."""
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            return ImageOps.pad(upright, (side, side), color=PAPER)
    except (OSError, ValueError, Image.DecompressionBombError):
        return Image.new("RGB", (side, side), EMPTY)


def _write(draw: ImageDraw.ImageDraw, row: dict[str, Any], x: int, y: int) -> None:
    font = ImageFont.load_default(size=10.5)
    loras = [f"{Path(x['lora']).stem} {x['strength']:g}" for x in json.loads(row["loras"])]
    style = f"  [{', '.join(loras)}]" if loras else ""
    tweet = json.loads(row["metadata"]).get("tweet_text", "")
    words = row.get("prompt") or row.get("instruction") or ""
    for text, colour in ((words + style, INK), (tweet, FAINT)):
        for line in textwrap.wrap(text, CHARACTERS)[:4]:
            draw.text((x, y), line, fill=colour, font=font)
            y += LINE_HEIGHT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheet", type=Path)
    options = parser.parse_args()
    sheet = draw_sheet(options.folder, read_rows(options.folder))
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
