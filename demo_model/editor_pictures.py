"""Lets editors work: `python -m demo_model.editor_pictures --editors FOLDER... --out FOLDER`.

What the demo judge has to judge are an editor's pictures, not a renderer's: it is trained on
both. Edit and noise of picture i come from the seed and i alone, so a file needs no label, and
one that is there is not made again. The editors take turns.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.multiprocessing.spawn import spawn

from demo_model.demo_workers import do_edit, editor
from demo_model.edits import Edit, sample_edit


def edit_of(seed: int, number: int) -> Edit:
    """The edit that picture `number` was to show."""
    return sample_edit(random.Random(f"{seed} {number}"))


def load_pictures(folder: Path) -> list[tuple[Edit, Image.Image]]:
    """Every edit with what an editor made of it."""
    files = sorted(folder.glob("*.png"))
    return [(edit_of(*map(int, f.stem.split("-"))), Image.open(f).convert("RGB")) for f in files]


def _work(rank: int, ranks: int, editors: Sequence[Path], out: Path, count: int, seed: int) -> None:
    torch.set_num_threads(1)
    for turn, folder in enumerate(editors):
        family = editor(folder)
        with TemporaryDirectory() as name:
            for number in range(turn, count, len(editors)):
                file = out / f"{seed}-{number:05d}.png"
                if number // len(editors) % ranks == rank and not file.exists():
                    picture = do_edit(family, edit_of(seed, number), number, Path(name))
                    picture.save(draft := file.with_suffix(".draft"), "PNG")
                    draft.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--editors", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    work = (options.threads, options.editors, options.out, options.count, options.seed)
    spawn(_work, work, nprocs=options.threads)


if __name__ == "__main__":
    main()
