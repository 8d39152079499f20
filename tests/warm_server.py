"""The process that warm commands are forks of: `python -m tests.warm_server LISTENER KIND`.

It has imported what they need and has one thread. It serves all test processes of a run, and ends
with the last of them.
"""

import ctypes
import json
import os
import select
import socket
import sys
import types
from pathlib import Path
from typing import Any, Literal

from loguru import logger

from tests import births, known_paths, late_environment, warm_bridge, warm_fork_server
from tests.forks_on_demand import importing
from tests.quick_exit import run_and_exit

Kind = Literal["simulated", "models", "ray"]
"""What the commands' workers are: on simulated devices, with real models, or on Ray's nodes."""

COMMANDS = (
    *(
        "apps.tweets.command",
        "apps.edit_images.command",
        "apps.edit_benchmark.command",
        "apps.watch.command",
        "apps.server.command",
        "apps.server.safety.key_command",
    ),
    # What they import later, once they know that they need it.
    *("core.engine.engine", "core.processes.local_backend", "core.devices.load_turns"),
    *("apps.edit_benchmark.data_sets.imagefolder", "apps.edit_benchmark.data_sets.gedit"),
    *("apps.edit_benchmark.data_sets.re_edit", "core.intake.kinds.generate", "core.judges.clip"),
    *("core.judges.vlm", "core.judges.vlm_logits", "multiprocessing.popen_fork"),
    *("multiprocessing.popen_forkserver", "encodings.utf_8_sig", "pydantic.dataclasses"),
    *("numpy.ma", "rich._emoji_codes", "PIL.BmpImagePlugin", "PIL.GifImagePlugin"),
    *("PIL.JpegImagePlugin", "PIL.PpmImagePlugin", *births.SIMULATED),
    *(
        "apps.gallery.writer",
        "core.devices.nvml",
        "core.intake.kinds.edit",
        "core.intake.kinds.score",
    ),
)
HUB = "huggingface_hub"  # it reads the environment as it is imported
MARK = "TEST_MARK"  # environment: by which a test knows a command and all that it started
UNMARKED = "0" * 32  # as long as a mark
ENVIRONMENT = 50, 51  # where it begins and ends in memory, in /proc/self/stat
REQUEST = 1 << 20  # bytes
REPLY = 1 << 10


def serve(listener: socket.socket, kind: Kind) -> None:
    """Fork and reap as asked, until nobody asks any more. Returns in a fork, too: to run."""
    asking: list[socket.socket] = []
    while True:
        for ready in select.select([listener, *asking], [], [])[0]:
            if ready is listener:
                asking.append(listener.accept()[0])
                continue
            data, files, _, _ = socket.recv_fds(ready, REQUEST, 3)
            if not data:
                ready.close()
                asking.remove(ready)
                if not (asking or select.select([listener], [], [], 0)[0]):
                    sys.exit()
                continue
            request = json.loads(data)
            if isinstance(request, int):
                pid, status = os.waitpid(request, os.WNOHANG)
                reply = os.waitstatus_to_exitcode(status) if pid else None
            elif not (reply := os.fork()):
                for connection in (listener, *asking):
                    connection.close()
                _become(kind, *request, *files)
                return
            for file in files:
                os.close(file)
            ready.send(json.dumps(reply).encode())


def _become(
    kind: Kind, line: list[str], folder: str, environment: dict[str, str], *streams: int
) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` would.

    Args:
        streams: standard output and error, and input if it has any.
    """
    _wear(environment[MARK])
    os.environ.clear()
    os.environ.update(environment)
    late_environment.read_again()
    os.setsid()
    os.chdir(folder)
    for file, number in zip(streams, (1, 2, 0), strict=False):
        os.dup2(file, number)
        os.close(file)
    if sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    waiting = [warm_bridge.keep_ready().fileno()] if kind == "ray" else []
    warm_fork_server.keep_ready(kind, not_for_it=waiting)
    sys.argv[:] = line
    script = Path(line[0])
    sys.path.insert(0, str(script.parent))
    main = types.ModuleType("__main__")
    main.__file__ = line[0]
    sys.modules["__main__"] = main
    code = compile(script.read_bytes(), script, "exec")
    run_and_exit(lambda: exec(code, main.__dict__))


def _wear(mark: str) -> None:
    """Have the kernel show `mark` as this process's own: in the environment it was born with."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = (int(fields[number - 3]) for number in ENVIRONMENT)
    place = ctypes.string_at(begin, end - begin).index(f"{MARK}={UNMARKED}".encode())
    worn = f"{MARK}={mark}".encode()
    assert len(mark) == len(UNMARKED)
    ctypes.memmove(begin + place, worn, len(worn))


def read_once() -> None:
    """Have what a process reads and makes once: default settings, validators, torch's version."""
    from apps.edit_benchmark.settings import load_benchmark_settings
    from apps.server.settings import load_server_settings
    from core.devices.nvml import unlisted_gpus
    from core.intake.kinds.edit import EditKind
    from core.intake.kinds.generate import GenerateKind
    from core.intake.kinds.score import ScoreKind
    from core.settings import load_settings

    known_paths.look_up_once()
    logger.remove(logger.add(sys.stderr))
    load_settings()
    load_benchmark_settings()
    load_server_settings()
    GenerateKind().parse({"prompt": "a"})
    EditKind().parse({"instruction": "a", "source_images": ["a.png"]})
    ScoreKind().parse({"instruction": "a", "source_images": ["a.png"], "edited_image": "b.png"})
    unlisted_gpus()


def main(listener: int, kind: Kind) -> None:
    with importing():
        for name in COMMANDS:
            __import__(name)
        read_once()
        assert HUB not in sys.modules, "it reads the environment as it is imported"
        if kind == "models":
            warm_fork_server.import_models()
        if kind == "ray":
            warm_bridge.import_ray()
    serve(socket.socket(fileno=listener), kind)


if __name__ == "__main__":
    given: Any = sys.argv[2]
    main(int(sys.argv[1]), given)
