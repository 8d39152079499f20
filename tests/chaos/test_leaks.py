"""What many restarts of workers leave behind in main: nothing."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.both_engines import ON_BOTH
from tests.chaos.checks import count_orphans
from tests.chaos.engines import SPAWNED, RealEngine
from tests.chaos.scale import scaled
from tests.chaos.verdict import Verdict
from tests.conftest import Workplace, wait_until

Report = Callable[[Verdict], Verdict]
RESTARTS = scaled(12, 200)
WARM_UP = RESTARTS // 4  # restarts before which caches may still fill
WORKERS = 2
SPARE_FILES = 2
SPARE_BYTES = 8 * 2**20  # of resident memory; the records of the tasks done meanwhile, too
SHARED_MEMORY = "/dev/shm/"


@dataclass(frozen=True)
class Holdings:
    """What a main process holds at a moment when all its workers are up."""

    files: int
    zombies: int
    resident: int
    shared: int  # objects in shared memory that main or its workers use


def holdings(engine: RealEngine) -> Holdings:
    main = psutil.Process(engine.process.pid)
    zombies = sum(c.status() == psutil.STATUS_ZOMBIE for c in main.children())
    shared = sum(shared_memory(p) for p in (main, *engine.workers()))
    return Holdings(main.num_fds(), zombies, main.memory_info().rss, shared)


def shared_memory(process: psutil.Process) -> int:
    """By its maps: other programs use the same folder, so that its listing says nothing."""
    return Path(f"/proc/{process.pid}/maps").read_text().count(SHARED_MEMORY)


def restart(engine: RealEngine, rng: random.Random) -> None:
    victim = rng.choice(wait_until(engine.workers, "a worker"))
    victim.kill()
    wait_until(lambda: settled(engine, victim), "the successor")


def settled(engine: RealEngine, without: psutil.Process) -> bool:
    workers = engine.workers()
    return len(workers) == WORKERS and without not in workers


@ON_BOTH
def test_restarts_leave_nothing_behind(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    verdict = Verdict("restarts leak nothing", "SIGKILL of workers, one after another")
    tasks = [{"prompt": f"picture {i}"} for i in range(100 + 10 * RESTARTS)]
    times = {"seconds_per_megapixel_step": 250.0}  # 1 s a task: there are always some left
    rules = {"restart_backoff": 0.0, "restarts_before_retirement": 1000}
    rng = random.Random(8)
    changes = {"simulated": times, "supervision": rules, "workers": SPAWNED}
    with RealEngine(tmp_path, tasks, WORKERS, workplace, **changes) as engine:
        engine.start()
        for _ in range(WARM_UP):
            restart(engine, rng)
        before = holdings(engine)
        for _ in range(RESTARTS - WARM_UP):
            restart(engine, rng)
            verdict.attempts += 1
        wait_until(
            lambda: abs(holdings(engine).files - before.files) <= SPARE_FILES, "files to be closed"
        )
        after = holdings(engine)
        verdict.found("zombie", after.zombies)
        verdict.found("shared memory", abs(after.shared - before.shared))
        verdict.found("resident memory", after.resident > before.resident + SPARE_BYTES)
        engine.process.send_signal(signal.SIGINT)
        engine.wait()
        count_orphans(engine, verdict)
        print(before, after)
    assert not report(verdict).violations
