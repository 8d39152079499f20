"""How soon a large file's first picture is begun, and what waits in main: `python -m
benchmarks.admission [--tasks N]`.

The command's own way: a tweets file and the same as JSONL are read, planned and drawn into a
folder without earlier results; the time runs from the file to the first lease that a simulated
device gets, with workers that are up already, and is told as CPU time of main, too. Then the run
is interrupted. Memory is what Python has allocated in main, by tracemalloc, for tasks that wait:
admitted, recorded and queued, on a device that is busy for ever with the first. It is measured
with 20,000 tasks at most.
"""

import argparse
import gc
import json
import random
import threading
import time
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

from loguru import logger

from apps.tweets.tweets_file import read_tweets
from core.events import Event, TaskStarted
from core.multi_gpu_image_generator import MultiGPUImageGenerator

WORDS = ["red", "house", "green", "river", "blue", "sky", "portrait", "lamp", "winter", "forest"]
LETTERS = 100  # of a prompt, about
MOST_WAITING = 20_000  # tasks that are measured: under tracemalloc each takes four times as long
FOR_EVER = {"seconds_per_megapixel_step": 1e6}


def text(rng: random.Random) -> str:
    words = ""
    while len(words) < LETTERS - 5:
        words += f"{rng.choice(WORDS)} "
    return words.strip()


def write_tweets(file: Path, tasks: int) -> None:
    """A persona file: each tweet with a text of its own beside its prompt."""
    rng = random.Random(0)
    sizes = {"width": 64, "height": 64, "steps": 8}
    tweets = [
        {
            "slot": n % 20,
            "tweet_text": text(rng),
            "mood": "calm",
            "image_generation": {"positive_prompt": text(rng), "generation_params": sizes},
        }
        for n in range(tasks)
    ]
    file.write_text(json.dumps({"persona": {"name": "Mira Vale"}, "tweets": tweets}), "utf-8")


def write_lines(file: Path, tasks: int) -> None:
    """JSONL of prompts."""
    rng = random.Random(0)
    lines = (json.dumps({"prompt": text(rng), "width": 64, "height": 64}) for _ in range(tasks))
    file.write_text("\n".join(lines), "utf-8")


class Run:
    """One file, drawn by two simulated devices that end no task.

    Attributes:
        seconds: to the first lease, and of main's CPU.
    """

    def __init__(self, file: Path, out: Path) -> None:
        self._first = threading.Event()
        self.seconds = (0.0, 0.0)
        self._file = file
        config = {"model": "simulated", "device": "cpu", "simulated": FOR_EVER}
        self.generator = MultiGPUImageGenerator(
            2, config=config, output_dir=out, listener=self._listen
        )
        self.generator.start()
        time.sleep(5)  # workers boot: a matter of benchmarks.start
        self._begun = time.perf_counter(), time.process_time()

    def _listen(self, event: Event) -> None:
        if isinstance(event, TaskStarted) and not self._first.is_set():
            begun, cpu = self._begun
            self.seconds = time.perf_counter() - begun, time.process_time() - cpu
            self._first.set()

    def begin_and_end(self) -> tuple[float, float]:
        """Read, plan and lease; then interrupt."""
        threading.Thread(target=self._interrupt, daemon=True).start()
        inputs = read_tweets(self._file)
        plan = self.generator.prepare(inputs.inputs, [inputs.folder])
        self.generator.execute(plan)
        self.generator.stop(at_once=True)
        return self.seconds

    def _interrupt(self) -> None:
        self._first.wait()
        self.generator.abandon()

    def bytes_per_task(self) -> float:
        """Of what main holds when all tasks but the first wait."""
        gc.collect()
        tracemalloc.start()
        inputs = read_tweets(self._file)
        tasks = len(inputs.inputs)
        plan = self.generator.prepare(inputs.inputs, [inputs.folder])
        del inputs
        threading.Thread(target=self.generator.execute, args=(plan,), daemon=True).start()
        while plan.rest:  # until the last input has been looked at
            time.sleep(0.1)
        time.sleep(1)  # until the engine has taken it
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.generator.abandon()
        self.generator.stop(at_once=True)
        return held / tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tasks", type=int, default=100_000)
    tasks = parser.parse_args().tasks
    logger.remove()
    print(f"{tasks:,} tasks\n")
    print("| file | s to the first lease | CPU s of main | bytes a waiting task |")
    print("| --- | --- | --- | --- |")
    with TemporaryDirectory(prefix="bench-") as folder:
        for name, write in (("tweets.json", write_tweets), ("lines.jsonl", write_lines)):
            file = Path(folder) / name
            write(file, tasks)
            seconds, cpu = Run(file, Path(folder) / f"{name}-out").begin_and_end()
            write(file, min(tasks, MOST_WAITING))
            held = Run(file, Path(folder) / f"{name}-held").bytes_per_task()
            print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {held:.0f} |", flush=True)


if __name__ == "__main__":
    main()
