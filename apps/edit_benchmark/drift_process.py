"""The process that measures drifts while a run goes on: see `apps.edit_benchmark.drift_meter`.

It runs at the lowest priority: the run's own processes have no work with it. A line of standard
input names an edit and its source, a line of standard output answers it. Where standard input
ends, so does the process: its run is over, or was killed.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from apps.edit_benchmark.drifts import measured

NICE = 19


def main() -> None:
    """Answer until there are no more questions."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):  # they are meant for the run
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(NICE)
    with suppress(BrokenPipeError):
        for line in sys.stdin:
            edited, source = json.loads(line)
            print(json.dumps(measured(Path(edited), Path(source))), flush=True)


if __name__ == "__main__":
    main()
