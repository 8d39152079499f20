"""Makes the demo editor, the demo judge and their benchmark: `python -m demo_model.build_editor`.

Autoencoder, transformer with text encoder, judge, the shipped pairs, then the figures of the
model card. A finished stage is kept in the work folder and not repeated.
"""

import argparse
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo_model.build import HERE, stage


def _train(module: str, work: Path, name: str, seed: int) -> None:
    """On one thread; kept under its name when it is done."""
    if not (work / name).exists():
        draft = work / f"{name}_training"
        stage(module, "--vae", work / "vae", "--out", draft, "--seed", seed, "--threads", 1)
        draft.rename(work / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE.parent / "outputs" / "editor_build")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    work, seed = options.work, options.seed
    if not (work / "vae").exists():
        draft = work / "vae_training"
        stage("train_editor_vae", "--out", draft, "--seed", seed, "--threads", options.threads)
        draft.rename(work / "vae")
    models = {"editor": "train_editor", "judge": "train_judge"}
    with ThreadPoolExecutor(options.threads) as together:  # side by side: a quarter sooner
        list(together.map(lambda name: _train(models[name], work, name, seed), models))
    for name in models:
        shutil.copytree(work / name, HERE / name, dirs_exist_ok=True)
    stage("write_pairs")
    stage("evaluate_editor", "--card")


if __name__ == "__main__":
    main()
