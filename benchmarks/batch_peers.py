"""Batches beside Ray and accelerate: `python -m benchmarks.scheduling --peers PYTHON`.

Ray Data (`map_batches` with a pool of actors), Ray ActorPool, Ray Serve and `accelerate launch`
with `split_between_processes` do the same tasks as this engine, in turns: tasks of one second,
mixed sizes, 64 LoRAs of which a worker keeps one, and mixed sizes while one worker is killed. Work
is a sleep. The peers' Ray has an environment of its own, PYTHON; accelerate is this project's:

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install "ray[data,serve]==2.60.0"

This engine writes every picture and every record to the disk; the others keep nothing. Where this
environment has Ray, too, this engine on a local Ray cluster is one more contender.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.ours import Engine
from benchmarks.peers import Task, Work
from core.events import Event, TaskEnded
from core.settings import PROJECT_DIR

UNIT = 0.4  # seconds: a task of one megapixel
LORAS = 64
STARTING = 300.0  # seconds, until a contender is ready
PATIENCE = 600.0  # seconds for a batch
KILLED_AT = 0.4  # of the tasks have begun, or ended, when a worker is killed
PEERS = {"Ray Data": "data", "Ray ActorPool": "actors", "Ray Serve": "serve"}
NEEDS = {"data": "ray.data, pandas, pyarrow", "actors": "ray", "serve": "ray.serve"}
Killer = Callable[[int], None]


@dataclass(frozen=True)
class Ran:
    """What became of one batch.

    Attributes:
        first: seconds to the first result.
        begun_again: tasks that were begun more than once.
        without: tasks without a result.
    """

    seconds: float
    first: float
    begun_again: int
    without: int
    error: str | None = None


Batch = Callable[[Sequence[Work], bool], Ran]
"""Does tasks, and kills one worker in the middle if it is to."""


def compare(python: Path, workers: int, rounds: int) -> None:
    """Print a table for each scenario."""
    with ExitStack() as stack:
        contenders = dict(_contenders(stack, python, workers))
        mixed = [_mixed(8 * workers, seed) for seed in range(rounds)]
        loras = [_with_loras(40 * workers, seed) for seed in range(rounds)]
        even = [[Work(1.0)] * 8 * workers] * rounds
        _tell("one second each", contenders, even, workers)
        whole = _tell("mixed sizes", contenders, mixed, workers)
        _tell(f"{LORAS} LoRAs of which a worker keeps one", contenders, loras, workers)
        print(f"\nmixed sizes, one of {workers} workers killed; load {os.getloadavg()[0]:.1f}\n")
        print("| contender | s later | tasks begun again | tasks without a result | error |")
        print("| --- | --- | --- | --- | --- |")
        for name, batch in contenders.items():
            ran = batch(mixed[0], True)
            later = f"{ran.seconds - whole[name][0].seconds:+.1f}" if not ran.without else "-"
            print(
                f"| {name} | {later} | {ran.begun_again} | {ran.without} of {len(mixed[0])} | "
                f"{ran.error or '-'} |",
                flush=True,
            )


def _mixed(count: int, seed: int) -> list[Work]:
    draw = random.Random(seed)
    return [
        Work(round(UNIT * draw.choice([0.25, 1.0, 2.25]) * draw.uniform(0.95, 1.05), 3))
        for _ in range(count)
    ]


def _with_loras(count: int, seed: int) -> list[Work]:
    draw = random.Random(seed)
    return [Work(0.1, draw.randrange(LORAS)) for _ in range(count)]


def _bound(tasks: Sequence[Work], workers: int) -> float:
    return max(sum(t.seconds for t in tasks) / workers, max(t.seconds for t in tasks))


def _tell(
    title: str, contenders: dict[str, Batch], draws: Sequence[Sequence[Work]], workers: int
) -> dict[str, list[Ran]]:
    found: dict[str, list[Ran]] = {name: [] for name in contenders}
    for tasks in draws:
        for name, batch in contenders.items():
            found[name].append(batch(tasks, False))
    bounds = [_bound(tasks, workers) for tasks in draws]
    print(
        f"\n{workers} workers, {len(draws[0])} tasks, {title}; lower bound {median(bounds):.2f} s;"
    )
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| contender | seconds | over the bound | s to the first result |")
    print("| --- | --- | --- | --- |")
    for name, ran in found.items():
        over = median(one.seconds / low for one, low in zip(ran, bounds, strict=True))
        seconds, first = median(r.seconds for r in ran), median(r.first for r in ran)
        print(f"| {name} | {seconds:.2f} | {over:.3f} | {first:.2f} |", flush=True)
    return found


def _contenders(stack: ExitStack, python: Path, workers: int) -> Iterator[tuple[str, Batch]]:
    yield "this engine", stack.enter_context(_ours(workers))
    if _takes_ray():
        yield "this engine, engine: ray", stack.enter_context(_ours(workers, engine="ray"))
    for name, what in PEERS.items():
        wanted = NEEDS[what]
        has = subprocess.run([str(python), "-c", f"import {wanted}"], capture_output=True)
        if has.returncode:
            print(f"{name} is left out: {python} cannot import {wanted}.")
        else:
            yield name, stack.enter_context(_by_ray(python, what, workers))
    yield "accelerate launch", stack.enter_context(_by_accelerate(workers))


def _takes_ray() -> bool:
    """Whether the engine can work on a Ray cluster, and Ray is there for it."""
    if not (PROJECT_DIR / "cluster").is_dir():
        return False
    found = subprocess.run([sys.executable, "-c", "import ray"], capture_output=True)
    return found.returncode == 0


@contextmanager
def _ours(workers: int, engine: str | None = None) -> Iterator[Batch]:
    settings = {} if engine is None else {"engine": engine}
    others = _worker_processes()
    with Engine(workers, 1, LORAS, **settings) as ours:
        own = _worker_processes() - others
        ended: list[float] = []

        def listen(event: Event) -> None:
            if isinstance(event, TaskEnded):
                ended.append(time.time())

        def batch(tasks: Sequence[Work], kills: bool) -> Ran:
            ours.generator.listener = listen
            ended.clear()
            began = time.time()
            if kills:
                most = KILLED_AT * len(tasks)
                _when(lambda: len(ended) >= most, min(own, key=lambda p: p.pid).kill)
            results = ours.results(tasks)
            seconds = time.time() - began
            return Ran(
                seconds,
                min(ended, default=began + seconds) - began,
                sum(result.attempts > 1 for result in results),
                sum(not result.success for result in results),
            )

        yield batch


def _when(comes: Callable[[], bool], then: Callable[[], None]) -> None:
    """Do something in a thread of its own once something is true; give up after a minute."""

    def watch() -> None:
        end = time.monotonic() + 60
        while not comes() and time.monotonic() < end:
            time.sleep(0.01)
        then()

    threading.Thread(target=watch, daemon=True).start()


def _worker_processes() -> set[psutil.Process]:
    """This machine's worker processes of this engine, also those of a Ray cluster on it."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if "--multiprocessing-fork" in (process.info["cmdline"] or ()):
            found.add(process)
    return found


class _Log:
    """What workers wrote down of a batch."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.file.read_text().splitlines()]

    def tasks(self, tasks: Sequence[Work]) -> list[Task]:
        log = str(self.file)
        return [Task(n, task.seconds, task.lora, log) for n, task in enumerate(tasks)]

    def kill_one_in_the_middle(self, tasks: int) -> None:
        """Kill a worker once so many of its batch's tasks have begun."""
        _when(lambda: len(self._begun()) >= KILLED_AT * tasks, self._kill_one)

    def _begun(self) -> list[list[str]]:
        return [line for line in self.lines() if line[0] == "begin"]

    def _kill_one(self) -> None:
        """Kill the process that began a task last."""
        begun = self._begun()
        if begun:
            with suppress(ProcessLookupError):
                os.kill(int(begun[-1][2]), signal.SIGKILL)

    def ran(self, tasks: Sequence[Work], began: float, seconds: float, error: str | None) -> Ran:
        lines = self.lines()
        begun = [line[1] for line in lines if line[0] == "begin"]
        ends = {line[1]: float(line[3]) for line in lines if line[0] == "end"}
        first = min(ends.values(), default=began + seconds) - began
        again = len({task for task in begun if begun.count(task) > 1})
        return Ran(seconds, first, again, len(tasks) - len(ends), error)


@contextmanager
def _by_ray(python: Path, what: str, workers: int) -> Iterator[Batch]:
    with (
        tempfile.TemporaryDirectory() as name,
        _process([str(python), "-m", "benchmarks.peer_batches", what, str(workers)]) as peer,
    ):
        assert peer.stdin is not None and peer.stdout is not None
        assert peer.stdout.readline().strip() == "ready", f"{what} did not start"
        numbers = iter(range(1_000_000))

        def batch(tasks: Sequence[Work], kills: bool) -> Ran:
            assert peer.stdin is not None and peer.stdout is not None
            log = _Log(Path(name) / str(next(numbers)))
            if kills:
                log.kill_one_in_the_middle(len(tasks))
            peer.stdin.write(json.dumps([asdict(task) for task in log.tasks(tasks)]) + "\n")
            peer.stdin.flush()
            said = json.loads(peer.stdout.readline())
            return log.ran(tasks, said["began"], said["seconds"], said["error"])

        batch(_mixed(workers, 0), False)  # everything is imported then
        yield batch


@contextmanager
def _by_accelerate(workers: int) -> Iterator[Batch]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # What `accelerate launch` runs for several GPUs; for several CPUs it wants MPI.
        launcher = ("-m", "torch.distributed.run", "--nproc_per_node", str(workers))
        command = [sys.executable, *launcher, "-m", "benchmarks.peer_accelerate", name]
        with _process(command) as peer:
            _wait(lambda: len(list(folder.glob("ready-*"))) == workers, peer, STARTING)
            numbers = iter(range(1_000_000))

            def batch(tasks: Sequence[Work], kills: bool) -> Ran:
                number = next(numbers)
                log = _Log(folder / f"log-{number}")
                partial = folder / f"{number}.partial"
                partial.write_text(json.dumps([asdict(task) for task in log.tasks(tasks)]))
                if kills:
                    log.kill_one_in_the_middle(len(tasks))
                began, error = time.time(), None
                partial.replace(folder / f"{number}.json")
                done = lambda: len(list(folder.glob(f"{number}-*"))) == workers  # noqa: E731
                if not _wait(done, peer, PATIENCE):
                    error = f"exit code {peer.returncode}"
                return log.ran(tasks, began, time.time() - began, error)

            batch(_mixed(workers, 0), False)
            yield batch
            (folder / "end").touch()


def _wait(done: Callable[[], bool], peer: "subprocess.Popen[str]", patience: float) -> bool:
    end = time.monotonic() + patience
    while not done():
        if peer.poll() is not None:
            return False
        assert time.monotonic() < end, "a contender did not come to its end"
        time.sleep(0.005)
    return True


@contextmanager
def _process(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A contender's process, in a group of its own that ends with the block."""
    environ = {**os.environ, "PYTHONPATH": str(PROJECT_DIR), "RAY_USAGE_STATS_ENABLED": "0"}
    peer = subprocess.Popen(
        command,
        cwd=PROJECT_DIR,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield peer
    finally:
        if peer.stdin is not None:
            with suppress(BrokenPipeError):
                peer.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            peer.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(peer.pid, signal.SIGKILL)
        peer.wait()
