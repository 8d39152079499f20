"""Makes the demo editor, the demo judge and their benchmark: `python -m demo_model.build_editor`.

Autoencoder, transformer with text encoder, judge, the judge once more on the editors' own
pictures, the shipped pairs, then the figures of the model card. A finished stage is kept in the
work folder and not repeated.
"""

import argparse
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo_model.build import HERE, stage


def _train(work: Path, name: str, module: str, seed: int, *options: str | int | Path) -> None:
    """On one thread; kept under its name when it is done."""
    if not (work / name).exists():
        draft = work / f"{name}_training"
        shared = ("--vae", work / "vae", "--out", draft, "--seed", seed, "--threads", 1)
        stage(module, *shared, *options)
        draft.rename(work / name)


def _editor(work: Path, seed: int) -> None:
    """In two courses, the second with edits of its own."""
    _train(work, "editor_first", "train_editor", seed)
    first = work / "editor_first"
    _train(work, "editor", "train_editor", seed + 1, "--first", first, "--steps", 6000)


def _judge(work: Path, seed: int) -> None:
    """What the pictures show and what changed."""
    _train(work, "judge_first", "train_judge", seed)


def _judge_of_editors(work: Path, seed: int) -> None:
    """The same of pictures that both editors made, and how well they are drawn; in two courses."""
    if not (work / "judge").exists():
        editors = ("--editors", work / "editor", work / "editor_first")
        stage("editor_pictures", *editors, "--out", work / "pictures", "--seed", seed + 7)
    shared = ("--pictures", work / "pictures", "--examples", 6000)
    quality = ("--first", work / "judge_first", "--steps", 7000, "--quality-first", 300)
    _train(work, "judge_second", "train_judge", seed + 1, *shared, *quality)
    rest = ("--first", work / "judge_second", "--steps", 14_000)
    _train(work, "judge", "train_judge", seed + 2, *shared, *rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, default=HERE.parent / "outputs" / "editor_build")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    work, seed = options.work, options.seed
    if not (work / "vae").exists():
        draft = work / "vae_training"
        stage("train_editor_vae", "--out", draft, "--seed", seed, "--threads", options.threads)
        draft.rename(work / "vae")
    with ThreadPoolExecutor(options.threads) as together:  # side by side: a quarter sooner
        list(together.map(lambda train: train(work, seed), (_editor, _judge)))
    _judge_of_editors(work, seed)
    for name in ("editor", "judge"):
        shutil.copytree(work / name, HERE / name, dirs_exist_ok=True)
    stage("write_pairs")
    stage("evaluate_editor", "--card")


if __name__ == "__main__":
    main()
