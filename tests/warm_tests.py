"""The process that test processes are forks of: `python -m tests.warm_tests LISTENER`.

It has imported, once for all of them, the libraries that tests of real models import: which takes
each test process five seconds of a core. It has one thread, and ends with pytest's own process.
"""

import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies

from tests import warm_fork_server
from tests.forks_on_demand import importing, serve
from tests.quick_exit import run_and_exit

PROJECT = Path(__file__).resolve().parent.parent
JOIN = PROJECT / "tests" / "warm_join.py"
IMPORTED = (
    *("pytest", "numpy.testing", "PIL.Image", "yaml", "psutil", "torch", "diffusers", "peft"),
    *(
        "apps.server.command",
        "apps.server.safety.key_command",
        "apps.edit_benchmark.command",
        "apps.tweets.command",
    ),
    *("tests.tiny_pipelines", "tests.tiny_recent_pipelines", "tests.lora_layouts"),
    *("workers.models.native_image_generator", "workers.models.native_image_editor"),
    *("workers.judges.registry", "workers.judges.vlm_logits", "workers.judges.clip"),
    *("workers.process", "workers.result_saver", "workers.library_warnings"),
    *("demo_model.demo_workers", "diffusers.guiders", "peft.utils.hotswap", "numpy.ctypeslib"),
    *("openai.types.responses", "piexif", "piexif.helper", "ray", "starlette.testclient"),
    *("hypothesis.strategies", "playwright.sync_api", "axe_playwright_python.sync_playwright"),
    *(
        "sd_parsers",
        "sd_prompt_reader.image_data_reader",
        "pillow_heif",
        "prometheus_client.parser",
    ),
    *(
        "apps.doctor.command",
        "apps.gallery.command",
        "apps.watch.command",
        "apps.picture_commands.again",
    ),
    *("benchmarks.churn", "benchmarks.soak", "demo_model.build", "demo_model.gate"),
    *("PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.PpmImagePlugin", "PIL.TiffImagePlugin"),
    *("core.engine.engine", "core.processes.local_backend", "core.judges.clip"),
    *("core.intake.kinds.generate", "workers.simulated_gpu", "workers.hub_download"),
)  # not datasets, nor pandas: they have threads
# Of hypothesis: a busy machine makes any example slow, and each draw of one.
BUSY: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# Environment: threads of a library would not survive the fork.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


def command() -> str:
    """The command line that a test process is started with, in place of Python's.

    The process that calls this is the one with which all of them end.
    """
    place = f"\0tests-{os.getpid()}"  # of no file system
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(place)
        listener.listen()
        _mothers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.warm_tests", str(listener.fileno())],
                cwd=PROJECT,
                env={**os.environ, **ONE_THREAD},
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,  # which ends with this process
            )
        )
    return f"'{sys.executable}' '{JOIN}' '{place[1:]}'"


_mothers: list["subprocess.Popen[bytes]"] = []


def _become(
    code: str, folder: str, environment: dict[str, str], stdin: int, stdout: int, stderr: int
) -> str:
    """Look as a fresh `python -c CODE` does.

    Fork servers of real models that its tests start are ready, too. Other than those of users they
    have in sight what optional packages are installed, which workers of some models have.
    """
    warm_fork_server.keep_ready("models", not_for_it=(stdin, stdout, stderr))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate((stdin, stdout, stderr)):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv[:] = ["-c"]
    sys.path[0] = ""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.modules["__main__"] = types.ModuleType("__main__")
    return code


def prepare_hypothesis() -> None:
    """Have hypothesis do what it does for the first test of a process.

    It reads, or makes, its table of all characters, and looks for constants in whatever is imported
    that is ours, among 7,000 modules.
    """
    strategies.text().validate()

    @settings(database=None, **BUSY)
    @given(strategies.lists(strategies.integers(), min_size=50, max_size=50))
    def draw(numbers: list[int]) -> None:
        """So many that one of them is tried to be a constant."""

    draw()


@contextmanager
def words_unheard() -> Iterator[None]:
    """Leave out what libraries print as they are imported: pytest hides it, too, where tests do."""
    real = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(real, 2)
        os.close(real)


def main(listener: int) -> None:
    # Ctrl-C is for the tests; whoever has it ignored hands that on.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: None)
    with importing(), words_unheard():
        for name in IMPORTED:
            __import__(name)
        prepare_hypothesis()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads: forks of this process may hang"
    request, files = serve(socket.socket(fileno=listener))
    code = _become(*request, *files)
    run_and_exit(lambda: exec(code, sys.modules["__main__"].__dict__))


if __name__ == "__main__":
    main(int(sys.argv[1]))
