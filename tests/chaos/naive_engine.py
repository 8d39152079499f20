"""What the engine must not be: the negative control of the chaos tests.

One shared queue, plain workers, results appended to a file: what one writes in ten minutes,
and what works as long as nobody dies. Run as `naive_engine.py TASKS WORKERS FOLDER SECONDS`.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

PREPARATION = 0.004  # seconds for main to make a task: workers wait for it now and then


def work(tasks: Any, folder: Path, seconds: float) -> None:
    while (item := tasks.get()) is not None:
        position, task = item
        if task["prompt"].startswith("!crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(seconds)
        file = folder / f"{position}.png"
        Image.new("RGB", (64, 64)).save(file)
        record = {"position": position, "status": "done", "output_path": str(file)}
        with (folder / "results.jsonl").open("a") as results:
            results.write(json.dumps(record) + "\n")


def finished(folder: Path) -> set[int]:
    """Positions that an earlier run has recorded."""
    file = folder / "results.jsonl"
    if not file.exists():
        return set()
    positions = set()
    for line in file.read_text().splitlines():
        try:
            positions.add(json.loads(line)["position"])
        except ValueError:
            continue
    return positions


def main(tasks_file: str, workers: str, folder_name: str, seconds: str) -> None:
    folder = Path(folder_name)
    folder.mkdir(exist_ok=True)
    tasks: Any = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=work, args=(tasks, folder, float(seconds)))
        for _ in range(int(workers))
    ]
    for process in processes:
        process.start()
    done = finished(folder)
    for position, task in enumerate(json.loads(Path(tasks_file).read_text())):
        if position not in done:
            time.sleep(PREPARATION)
            tasks.put((position, task))
    for _ in processes:
        tasks.put(None)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
