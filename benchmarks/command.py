"""The whole command, from tweets file to pictures: `python -m benchmarks.command`.

200 tweets with the demo model, each contender a process of its own from start to end, against a
plain diffusers loop with all of this machine's threads, and the same loop in two processes by what
`accelerate launch` runs for several GPUs (for several CPUs it wants MPI).
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.ratios import times_faster
from core.settings import PROJECT_DIR
from demo_model.captions import caption
from demo_model.scenes import sample_scene

PICTURES = 200
ROUNDS = 3


def contenders(folder: Path) -> dict[str, list[str]]:
    tweets = str(folder / "tweets.json")
    command = [sys.executable, str(PROJECT_DIR / "generate_images_from_tweets.py"), tweets]
    options = ["--model", "auto", "--config", str(folder / "cpu.yaml"), "--output-dir"]
    batched = ["--config", str(folder / "batched.yaml"), "--output-dir"]
    return {
        "plain diffusers loop": [
            sys.executable, "-m", "benchmarks.plain_loop", tweets, str(folder / "plain"),
        ],
        "accelerate launch, 2 processes": [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
            "-m", "benchmarks.plain_loop", tweets, str(folder / "accelerate"),
        ],
        "the command, 1 worker": [*command, "1", *options, str(folder / "one")],
        "the command, 2 workers": [*command, "2", *options, str(folder / "two")],
        "max_batch: auto, 1 worker": [*command, "1", *batched, str(folder / "auto1")],
        "max_batch: auto, 2 workers": [*command, "2", *batched, str(folder / "auto2")],
    }  # fmt: skip


def main() -> None:
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        rng = random.Random(0)
        tweets = [{"prompt": caption(sample_scene(rng), rng)} for _ in range(PICTURES)]
        (folder / "tweets.json").write_text(json.dumps(tweets))
        (folder / "cpu.yaml").write_text("device: cpu\n")
        (folder / "batched.yaml").write_text("device: cpu\nworkers: {max_batch: auto}\n")
        lines = contenders(folder)
        seconds: dict[str, list[float]] = {name: [] for name in lines}
        for turn in range(ROUNDS):
            for name, line in lines.items():
                fresh = [*line[:-1], f"{line[-1]}-{turn}"]
                started = time.perf_counter()
                subprocess.run(
                    fresh, cwd=PROJECT_DIR, check=True, capture_output=True, env=os.environ
                )
                seconds[name].append(time.perf_counter() - started)
    base = seconds["plain diffusers loop"]
    print(f"{PICTURES} pictures of 128x128, {os.cpu_count()} cores\n")
    print("| contender | seconds | times faster |\n| --- | --- | --- |")
    for name, values in seconds.items():
        print(f"| {name} | {median(values):.1f} | {times_faster(base, values)} |")


if __name__ == "__main__":
    main()
