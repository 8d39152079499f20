"""Lets editors work: `python -m demo_model.editor_pictures --editors FOLDER... --out FOLDER`.

What the demo judge has to judge are an editor's pictures, not a renderer's: it is trained on
both. Edit and noise of picture i come from the seed and i alone, so a file needs no label, and
one that is there is not made again. The editors take turns.
"""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.multiprocessing.spawn import spawn

from demo_model.demo_workers import do_edit, editor
from demo_model.edits import Edit, sample_edit
from demo_model.stage import begin, stage_parser
from workers.boot import bind_to_parent


def edit_of(seed: int, number: int) -> Edit:
    """The edit that picture `number` was to show."""
    return sample_edit(random.Random(f"{seed} {number}"))


def load_pictures(folder: Path) -> list[tuple[Edit, Image.Image]]:
    """Every edit with what an editor made of it."""
    files = sorted(folder.glob("*.png"))
    return [(edit_of(*map(int, f.stem.split("-"))), Image.open(f).convert("RGB")) for f in files]


@dataclass(frozen=True)
class _Work:
    """What the processes share."""

    editors: Sequence[Path]
    out: Path
    count: int
    seed: int
    until: float | None
    parent: int


def _work(rank: int, ranks: int, work: _Work) -> None:
    bind_to_parent(work.parent)
    torch.set_num_threads(1)
    for turn, folder in enumerate(work.editors):
        family = editor(folder)
        with TemporaryDirectory() as name:
            for number in range(turn, work.count, len(work.editors)):
                if work.until and time.time() > work.until:
                    return
                file = work.out / f"{work.seed}-{number:05d}.png"
                if number // len(work.editors) % ranks == rank and not file.exists():
                    picture = do_edit(family, edit_of(work.seed, number), number, Path(name))
                    picture.save(draft := file.with_suffix(".draft"), "PNG")
                    draft.rename(file)


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--editors", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=6_000)
    options = begin(parser)
    part = options.out.with_name(f"{options.out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    work = _Work(options.editors, part, options.count, options.seed, options.until, os.getpid())
    spawn(_work, (options.threads, work), nprocs=options.threads)
    part.rename(options.out)


if __name__ == "__main__":
    main()
