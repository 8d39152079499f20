"""Makes the demo editor, the demo judge and their benchmark: `python -m demo_model.build_editor`.

Autoencoder, transformer with text encoder, judge, the shipped pairs, then the figures of the
model card. A finished stage is kept in the work folder and not repeated.
"""

import argparse
import shutil
from pathlib import Path

from demo_model.build import HERE, stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE.parent / "outputs" / "editor_build")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    work, common = options.work, ("--seed", options.seed, "--threads", options.threads)
    if not (work / "vae").exists():
        stage("train_editor_vae", "--out", work / "vae", *common)
    if not (work / "editor").exists():
        stage("train_editor", "--vae", work / "vae", "--out", work / "training", *common)
        (work / "training").rename(work / "editor")
    if not (work / "judge").exists():
        stage("train_judge", "--editor", work / "editor", "--out", work / "judging", *common)
        (work / "judging").rename(work / "judge")
    for name in ("editor", "judge"):
        shutil.copytree(work / name, HERE / name, dirs_exist_ok=True)
    stage("write_pairs")
    stage("evaluate_editor", "--card")


if __name__ == "__main__":
    main()
