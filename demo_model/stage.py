"""What every stage of the training takes from the command line, and how it leaves its result.

A stage may be killed at any moment: its result appears whole or not at all, and what it had
reached is in a state file beside it.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from workers.boot import bind_to_parent


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all stages share."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="the result; not made twice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--until", type=float, help="time.time() at which to be done")
    parser.add_argument("--parent", type=int, help="process that this one must not outlive")
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the options; leave if the result is there, or the device is not."""
    options = parser.parse_args()
    if options.parent:
        bind_to_parent(options.parent)
    if options.out.exists():
        print(f"{options.out} is there already.")
        sys.exit(0)
    check_device(options.device)
    options.device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    return options


def check_device(device: str) -> None:
    """Leave if torch does not see it."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no CUDA device here; take --device cpu.")


def state_file(out: Path, of: str = "") -> Path:
    """Where a stage keeps what it has reached."""
    return out.with_name(f"{out.name}{of and '.' + of}.state")


def sheet_file(out: Path) -> Path:
    """Where a stage shows what it draws so far."""
    return out.with_name(f"{out.name}.png")


def publish(write: Callable[[Path], None], out: Path) -> None:
    """Let `write` fill a folder, give it its name, and remove the stage's state files."""
    unfinished = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write(unfinished)
    os.replace(unfinished, out)
    for ending in ("state", "draft"):
        for file in out.parent.glob(f"{out.name}.*{ending}"):
            file.unlink()
