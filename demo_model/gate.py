"""Ships what was trained if no figure of the model card is worse: `python -m demo_model.gate`.

Shipped and new models are measured in the same way, with the same prompts and seeds, on this
machine. If nothing is worse, the new ones take the shipped ones' place and the card gets their
figures; otherwise it says what is worse, and changes nothing.
"""

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_model.build import WORK
from demo_model.figures import Figure, Measured, worse_figures, write_card

HERE = Path(__file__).resolve().parent
SAMPLES = 300  # of the model card
SEEDS = {"generator": 12345, "editing": 54321}  # of the model card
MEGABYTES = 40.0  # of all the demo's weights
EXCHANGED = ".exchanged"  # is there while what was shipped before is removed


@dataclass(frozen=True)
class Half:
    """Models that the card measures together, by the names of their folders here.

    Attributes:
        made: where the build leaves each in its work folder.
        together: one of them fits no other but its own.
    """

    name: str
    made: Mapping[str, Path]
    measure: Callable[[Mapping[str, Path]], Measured]
    marks: tuple[str, str]  # of its place in the card
    together: bool = False


def halves(samples: int, device: str) -> list[Half]:
    """What may be shipped."""
    from demo_model import evaluate, evaluate_editor

    return [
        Half(
            "generator",
            {"checkpoint": Path("transformer"), "loras": Path("loras")},
            lambda at: evaluate.measure(
                at["checkpoint"], at["loras"], samples, SEEDS["generator"], device
            ),
            (evaluate.CARD_START, evaluate.CARD_END),
            together=True,
        ),
        Half(
            "editing",
            {"editor": Path("editor"), "judge": Path("judge")},
            lambda at: evaluate_editor.measure(
                at["editor"], at["judge"], samples, SEEDS["editing"]
            ),
            (evaluate_editor.CARD_START, evaluate_editor.CARD_END),
        ),
    ]


@dataclass(frozen=True)
class Verdict:
    """What is worse, and what the models to ship measure; nothing to ship where nothing is new."""

    worse: Sequence[str]
    new: Mapping[str, Path]
    measured: Mapping[str, Measured]

    @property
    def ships(self) -> bool:
        return bool(self.new) and not self.worse


def judge(
    work: Path, shipped: Path, choices: Sequence[Half], keep: Sequence[str] = (), mark: str = ""
) -> Verdict:
    """Compare what the work folder has with what is shipped.

    Args:
        shipped: the folder of the shipped models' folders.
        keep: models that are to stay as they are shipped, new or not.
        mark: tells measurements of one kind (samples, device) from others.
    """
    worse: list[str] = []
    new: dict[str, Path] = {}
    measured: dict[str, Measured] = {}
    for half in choices:
        old = {name: shipped / name for name in half.made}
        fresh = {
            name: work / made
            for name, made in half.made.items()
            if name not in keep and (work / made).is_dir()
        }
        if half.together and 0 < len(fresh) < len(half.made):
            print(f"{half.name}: left alone, for there is no new {', '.join({*old} - {*fresh})}")
            continue
        if not fresh:
            continue
        before = _measured(half, old, work, mark)
        measured[half.name] = _measured(half, {**old, **fresh}, work, mark)
        new |= fresh
        worse += worse_figures(before.figures, measured[half.name].figures)
    everything = {name: shipped / name for half in choices for name in half.made} | new
    size = Figure("all weights, MB", _megabytes(everything.values()), "below", MEGABYTES)
    return Verdict([*worse, *worse_figures([], [size])], new, measured)


def ship(verdict: Verdict, shipped: Path) -> None:
    """Put the new models in the place of the shipped ones, all of them or none."""
    for name, source in verdict.new.items():
        shutil.rmtree(shipped / f".{name}.new", ignore_errors=True)
        shutil.copytree(source, shipped / f".{name}.new")
    changed: list[str] = []
    try:
        for name in verdict.new:
            shutil.rmtree(shipped / f".{name}.old", ignore_errors=True)
            os.rename(shipped / name, shipped / f".{name}.old")
            changed.append(name)
            os.rename(shipped / f".{name}.new", shipped / name)
    except BaseException:
        for name in changed:
            shutil.rmtree(shipped / name, ignore_errors=True)
            os.rename(shipped / f".{name}.old", shipped / name)
        for name in verdict.new:
            shutil.rmtree(shipped / f".{name}.new", ignore_errors=True)
        raise
    (shipped / EXCHANGED).touch()
    for name in verdict.new:
        shutil.rmtree(shipped / f".{name}.old")
    (shipped / EXCHANGED).unlink()


def undo_half_an_exchange(shipped: Path, choices: Sequence[Half]) -> None:
    """Put back what `ship` had moved away when it was killed, if it was not through with all."""
    for name in (name for half in choices for name in half.made):
        old = shipped / f".{name}.old"
        if old.exists() and not (shipped / EXCHANGED).exists():
            shutil.rmtree(shipped / name, ignore_errors=True)
            os.rename(old, shipped / name)
        for leftover in (old, shipped / f".{name}.new"):
            shutil.rmtree(leftover, ignore_errors=True)
    (shipped / EXCHANGED).unlink(missing_ok=True)


def _measured(half: Half, folders: Mapping[str, Path], work: Path, mark: str) -> Measured:
    """Measured, or as it was measured before: the same weights need it only once."""
    digest = hashlib.sha256(mark.encode())
    for name in sorted(folders):
        for file in sorted(f for f in folders[name].rglob("*") if f.is_file()):
            digest.update(f"{name}/{file.relative_to(folders[name])}".encode())
            digest.update(file.read_bytes())
    kept = work / f"figures-{half.name}-{digest.hexdigest()[:16]}.json"
    if kept.exists():
        return Measured.load(kept)
    print(f"measuring {', '.join(map(str, folders.values()))}", flush=True)
    measured = half.measure(folders)
    measured.save(kept)
    return measured


def _megabytes(folders: Iterable[Path]) -> float:
    weights = [file for folder in folders for file in folder.rglob("*.safetensors")]
    return round(sum(file.stat().st_size for file in weights) / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, default=WORK, help="where `demo_model.build` worked")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="to draw on")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="with fewer, nothing ships")
    models = ["checkpoint", "loras", "editor", "judge"]
    text = "models that stay as they are shipped, new or not"
    parser.add_argument("--keep", nargs="+", default=[], choices=models, help=text)
    options = parser.parse_args()
    choices = halves(options.samples, options.device)
    undo_half_an_exchange(HERE, choices)
    mark = f"{options.samples} {options.device}"
    verdict = judge(options.work, HERE, choices, options.keep, mark)
    if not verdict.new:
        sys.exit(f"{options.work} has nothing trained to the end. First: make demo-model")
    for measured in verdict.measured.values():
        print(measured.table, end="\n\n")
    if verdict.worse:
        print("Nothing is shipped. Worse than what is shipped:", *verdict.worse, sep="\n  ")
        sys.exit(1)
    if options.samples < SAMPLES:
        print(f"No figure is worse, but {options.samples} samples are too few to ship on.")
        return
    ship(verdict, HERE)
    measured_halves = [half for half in choices if half.name in verdict.measured]
    tables = {half.marks: verdict.measured[half.name].table for half in measured_halves}
    write_card(HERE / "README.md", tables)
    print(
        f"No figure is worse. Shipped: {', '.join(verdict.new)}; the card has its figures. "
        "How to draw docs/contact_sheet.png and docs/edit_sheet.png again is in the main README."
    )


if __name__ == "__main__":
    main()
