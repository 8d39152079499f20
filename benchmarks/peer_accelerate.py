"""A batch by `accelerate launch` and `split_between_processes`; see `benchmarks.batch_peers`.

`python -m torch.distributed.run … -m benchmarks.peer_accelerate FOLDER`, which is what `accelerate
launch` runs: batches are files 0.json, 1.json, … of
FOLDER. Each process does its part of one and says so in a file of its own.
"""

import json
import sys
import time
from pathlib import Path

from accelerate import PartialState

from benchmarks.peers import Task, do_logged

LOOK = 0.005  # seconds between looks for the next batch


def main() -> None:
    folder, state, number = Path(sys.argv[1]), PartialState(cpu=True), 0
    state.wait_for_everyone()
    (folder / f"ready-{state.process_index}").touch()
    while not (folder / "end").exists():
        file = folder / f"{number}.json"
        if not file.exists():
            time.sleep(LOOK)
            continue
        tasks = [Task(**task) for task in json.loads(file.read_text())]
        with state.split_between_processes(tasks) as share:
            for task in share:
                do_logged(task)
        (folder / f"{number}-{state.process_index}").write_text(str(time.time()))
        number += 1


if __name__ == "__main__":
    main()
