"""Engines as the attacks see them: a command that turns a file of tasks into pictures."""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import uuid4

import psutil

from core.store.ledger import FILE_NAME
from tests.chaos.scale import LIMIT, scaled
from tests.conftest import JOBS_PROGRAM, LOCAL, PATIENCE, Project, Run, Workplace, found_below
from tests.edit_world import Bench, pair
from tests.fault_tickets import fault_environment
from tests.warm_server import MARK

LOAD_SECONDS = 0.3  # of simulated editors and judges
SPAWNED = {"start_method": "auto"}
# Where workers are killed at random: on a busy machine one start takes as long as many pictures of
# the others, and a device whose workers die before their first picture would be given up.
NEVER_GIVEN_UP = {"restart_backoff": 0.0, "restarts_before_retirement": 100}
NAIVE_SCRIPT = Path(__file__).with_name("naive_engine.py")


class Hang(Exception):
    """An engine made no progress for longer than its patience."""


@dataclass(frozen=True)
class Record:
    """What an engine says about one input."""

    position: int
    outcome: str  # done, failed, quarantined
    picture: Path | None = None


class Engine:
    """One engine at work in one folder. Leaving the context kills what is left of it."""

    patience = PATIENCE  # seconds without progress that count as a hang
    # Seconds within which nobody may be left of a command that was killed. Beside other tests a
    # process may need some for its own death.
    limit = scaled(30.0, LIMIT)
    # Of its workers. In the normal tests forks, which start at less cost; the files that attack
    # the start itself ask for `SPAWNED`, which is what simulated devices have without settings.
    start_method = scaled("forkserver", "auto")
    settings: dict[str, Any]

    def __init__(
        self,
        folder: Path,
        tasks: list[dict[str, Any]],
        count: int = 4,  # workers
        workplace: Workplace = LOCAL,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tasks = tasks
        self.workplace = workplace
        self.project = Project(folder, workplace)
        self.project.environment[MARK] = self._mark = uuid4().hex
        self.file = self.project.write_tweets(tasks)
        self.workers_wanted = count
        workers = {"start_method": self.start_method, **settings.pop("workers", {})}
        self.settings = workplace.simulated(**settings, workers=workers)
        self.run: Run | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        if self.run is not None:
            self.run.process.communicate()

    # -- what differs --------------------------------------------------------

    def start(self, *arguments: str) -> None:
        """Start the command; again to resume."""
        raise NotImplementedError

    def workers(self) -> list[psutil.Process]:
        raise NotImplementedError

    def records(self) -> list[Record | None]:
        """All records; None for one that cannot be read."""
        raise NotImplementedError

    @property
    def pictures(self) -> Path:
        raise NotImplementedError

    # -- what is alike -------------------------------------------------------

    @property
    def process(self) -> Any:
        assert self.run is not None
        return self.run.process

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def drawn(self) -> int:
        """Pictures that have their name."""
        try:
            with os.scandir(self.pictures) as files:
                return sum(f.name.endswith(".png") for f in files)
        except FileNotFoundError:
            return 0

    def leftovers(self) -> list[Path]:
        return found_below(self.project.folder, ".partial*")

    def processes(self) -> list[psutil.Process]:
        """Everybody who was started by this engine's command, whoever the parent is now."""
        mine = f"{MARK}={self._mark}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdecimal():
                continue
            with suppress(OSError, psutil.Error):
                if mine in Path("/proc", entry, "environ").read_bytes():
                    process = psutil.Process(int(entry))
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return [*found, *self.workplace.others()]

    def orphans(self) -> list[psutil.Process]:
        """Who is still there `limit` seconds after the end of the main process."""
        end = time.monotonic() + self.limit + self.workplace.grace
        left = self.processes()
        while left and time.monotonic() < end:
            time.sleep(0.02)
            left = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return left

    def kill_main(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self, condition: Callable[[], bool] = lambda: False) -> bool:
        """Until `condition` holds (True) or the command has ended (False).

        Raises:
            Hang: no picture more for longer than the engine's patience.
        """
        drawn, since = -1, time.monotonic()
        while not condition():
            if self.ended:
                return False
            if (now := self.drawn()) != drawn:
                drawn, since = now, time.monotonic()
            elif time.monotonic() - since > self.patience:
                raise Hang
            time.sleep(0.02)
        return True


class RealEngine(Engine):
    """The command generate_images_from_tweets.py on simulated devices."""

    def start(self, *arguments: str) -> None:
        line: list[str | int | Path] = [self.file, self.workers_wanted, *arguments]
        self.run = self.project.start(line, self.settings)

    def arm(self, point: str, tickets: int) -> None:
        """Break processes at a fault point of `core.fault_points`, so many times at the most."""
        folder = self.project.folder / "tickets"
        faults = fault_environment(folder, point, tickets)
        self.project.environment |= faults
        if point.startswith("worker."):
            self.workplace.arm(faults)

    def disarm(self) -> None:
        for name in ("FAULT_POINT", "FAULT_TICKETS"):
            self.project.environment.pop(name, None)

    @property
    def tickets_left(self) -> int:
        return len(list((self.project.folder / "tickets").iterdir()))

    def workers(self) -> list[psutil.Process]:
        return self.workplace.workers(self.process.pid)

    def fork_server(self) -> psutil.Process | None:
        return self.workplace.fork_server(self.process.pid)

    @property
    def pictures(self) -> Path:
        return self.project.pictures

    def records(self) -> list[Record | None]:
        try:
            return [_record(row) for row in self.project.records()]
        except FileNotFoundError:
            return []

    def leases(self, where: str) -> list[sqlite3.Row]:
        """Rows of the ledger's leases."""
        return self.ledger(f"SELECT * FROM leases WHERE {where}")

    def ledger(self, query: str) -> list[sqlite3.Row]:
        """What the ledger answers."""
        file = self.ledger_folder / FILE_NAME
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return []  # main died before the ledger was made
            return database.execute(query).fetchall()

    @property
    def ledger_folder(self) -> Path:
        return self.pictures

    @property
    def results_wanted(self) -> int:
        """Files that the whole input comes to."""
        return len(self.tasks)


class JobsEngine(RealEngine):
    """The program tests/chaos/jobs_program.py: several jobs at once on one generator.

    Args:
        jobs: how many tasks each of the jobs `a` to `d` has; `d` is cancelled now and then.
        planted: a fault of `tests.chaos.planted`.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, int],
        seed: int,
        planted: str | None = None,
        workplace: Workplace = LOCAL,
    ) -> None:
        names = [f"{job}{i:03}" for job, count in jobs.items() for i in range(count)]
        size = {"width": 64, "height": 64, "num_inference_steps": 1}
        tasks: list[dict[str, Any]] = [
            {"prompt": name, "task_id": name, "output_path": f"{name}.png", **size}
            for name in names
        ]
        times = {"seconds_per_megapixel_step": 5.0, "jitter": 0.5}  # about 0.02 s a task
        forks = {"start_method": "forkserver"}
        super().__init__(
            folder,
            tasks,
            workplace=workplace,
            simulated=times,
            workers=forks,
            supervision=NEVER_GIVEN_UP,
        )
        self._places = {name: i for i, name in enumerate(names)}
        self._orders = {
            "jobs": {job: [t for t in tasks if t["task_id"][0] == job] for job in jobs},
            "settings": self.settings,
            "workers": self.workers_wanted,
            "planted": planted,
        }
        self._rng = random.Random(seed)

    def start(self, *arguments: str) -> None:
        file = self.project.folder / "orders.json"
        file.write_text(json.dumps({**self._orders, "seed": self._rng.random()}))
        self.run = self.project.execute(JOBS_PROGRAM, [str(file)])

    @property
    def pictures(self) -> Path:
        return self.project.folder / "out"

    def records(self) -> list[Record | None]:
        """The table of records; of the job that was cancelled, what its caller got in the end."""
        tables = {"out/results.jsonl": "abc", "d.jsonl": "d"}
        found: list[Record | None] = []
        for name, jobs in tables.items():
            file = self.project.folder / name
            lines = file.read_text("utf-8").splitlines() if file.exists() else []
            found += [r for line in lines for r in self._of(jobs, line)]
        return found

    def _of(self, jobs: str, line: str) -> list[Record | None]:
        try:
            row = json.loads(line)
            name = row["task_id"]
            row["position"] = self._places.get(name)
            return [_record(row)] if name in self._places and name[0] in jobs else []
        except (ValueError, KeyError, TypeError):
            return [None]

    def found(self) -> Counter[str]:
        """What the program itself has found against the promise."""
        found: Counter[str] = Counter()
        file = self.project.folder / "found.jsonl"
        for line in file.read_text().splitlines() if file.exists() else []:
            kind, count = json.loads(line)
            found[kind] += count
        return found

    @property
    def cancels(self) -> int:
        file = self.project.folder / "cancels"
        return file.stat().st_size if file.exists() else 0


class BenchmarkEngine(RealEngine):
    """The command run_edit_benchmark.py: slots turn from editing to scoring."""

    SETTINGS: ClassVar[dict[str, Any]] = {
        "stages": "auto",
        "simulated": {
            "load_seconds": LOAD_SECONDS,
            "seconds_per_megapixel_step": 25.0,  # 0.1 s an edit
            "score_seconds": 1.0,  # eight at once
        },
        "supervision": NEVER_GIVEN_UP,
    }

    def __init__(self, folder: Path, pairs: int, workplace: Workplace = LOCAL) -> None:
        rows = [pair(i) for i in range(pairs)]
        super().__init__(folder, rows, workplace=workplace)
        self._bench = Bench(self.project)
        self._bench.write_pairs(rows)
        self.errors: list[str] = []  # of each run before the present one

    def start(self, *arguments: str) -> None:
        if self.run is not None:
            self.errors.append(self.run.errors)
        devices: dict[str, Any] = {"device": "cpu"}
        if self.workplace is LOCAL:  # Ray chooses its own
            devices["device_ids"] = list(range(self.workers_wanted))
        line = ("--log-level", "DEBUG", *arguments)
        self.run = self._bench.start(*line, **self.SETTINGS, **devices)

    @property
    def pictures(self) -> Path:
        return self._bench.results / "edits"

    @property
    def ledger_folder(self) -> Path:
        return self._bench.results

    @property
    def results_wanted(self) -> int:
        return 2 * len(self.tasks)

    def drawn(self) -> int:
        """Pairs, if each result is half of one."""
        return (len(self._bench.edits()) + len(self._bench.verdicts())) // 2

    def records(self) -> list[Record | None]:
        rows = self._bench.records() if (self._bench.results / "results.jsonl").exists() else []
        found: list[Record | None] = []
        for row in rows:
            outcome = "done" if row["outcome"] == "scored" else row["outcome"]
            picture = row["edited_image"] and self._bench.results / row["edited_image"]
            found.append(Record(int(row["pair_id"]), outcome, picture))
        return found

    def log(self) -> str:
        """What all runs have said."""
        assert self.run is not None
        return "".join([*self.errors, self.run.errors])


class NaiveEngine(Engine):
    """The negative control, tests/chaos/naive_engine.py."""

    patience = 2.0
    limit = LIMIT

    def start(self, *arguments: str) -> None:
        seconds = self.settings["simulated"]["seconds_per_megapixel_step"] * 64 * 64 / 1e6
        line = [str(self.file), str(self.workers_wanted), str(self.pictures), str(seconds)]
        self.run = self.project.execute(NAIVE_SCRIPT, line)

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.Error:
            return []

    @property
    def pictures(self) -> Path:
        return self.project.folder / "naive"

    def records(self) -> list[Record | None]:
        file = self.pictures / "results.jsonl"
        lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
        return [_parsed(line) for line in lines]


def _parsed(line: str) -> Record | None:
    try:
        return _record(json.loads(line))
    except (ValueError, KeyError, TypeError):
        return None


def _record(row: Mapping[str, Any]) -> Record:
    status = "done" if row["status"] == "skipped" else row["status"]
    path = row["output_path"]
    return Record(row["position"], status, Path(path) if path else None)
