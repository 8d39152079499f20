"""Makes the demo model from nothing: `python -m demo_model.build` (about two hours on 2 cores).

Autoencoder, its decoder once more, transformer with text encoder, LoRAs, then the figures of
the model card. Each stage is a module of its own and runs in a process of its own; a finished
stage is kept in the work folder and not repeated.
"""

import argparse
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo_model.styles import STYLES

HERE = Path(__file__).resolve().parent


def stage(module: str, *arguments: str | int | Path) -> None:
    """Run one stage; its output goes to this terminal."""
    line = [sys.executable, "-m", f"demo_model.{module}", *map(str, arguments)]
    print("$", *line[1:], flush=True)
    subprocess.run(line, cwd=HERE.parent, check=True)


def _train_lora(style: str, work: Path, seed: int) -> None:
    places = ("--model", work / "trained", "--out", work / "loras")
    stage("train_loras", "--styles", style, *places, "--seed", seed, "--threads", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, default=HERE.parent / "outputs" / "demo_model_build")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    work, common = options.work, ("--seed", options.seed, "--threads", options.threads)
    if not (work / "vae").exists():
        stage("train_vae", "--out", work / "vae", *common)
    if not (work / "sharp_vae").exists():
        stage("tune_decoder", "--vae", work / "vae", "--out", work / "sharp_vae", *common)
    if not (work / "trained").exists():
        vae = work / "sharp_vae"
        stage("train_transformer", "--vae", vae, "--out", work / "training", *common)
        (work / "training").rename(work / "trained")
    with ThreadPoolExecutor(options.threads) as together:  # one thread each: a third sooner
        list(together.map(lambda style: _train_lora(style, work, options.seed), STYLES))
    for source, target in ((work / "trained", "checkpoint"), (work / "loras", "loras")):
        shutil.copytree(source, HERE / target, dirs_exist_ok=True)
    stage("evaluate", "--card")


if __name__ == "__main__":
    main()
