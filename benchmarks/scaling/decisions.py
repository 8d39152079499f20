"""How long the scheduler takes to choose a task: microseconds of CPU, by how many tasks wait."""

import random
import time
from dataclasses import dataclass
from statistics import median

from core.engine.pending import Pending, Worker
from core.engine.scheduler import Scheduler

SIDES = (0.25, 1.0, 2.25)
PORTION = 200  # decisions that are timed together
PORTIONS = 10


@dataclass(frozen=True)
class Decisions:
    """Microseconds of CPU for a decision, and for a task that is queued.

    Attributes:
        median, slowest: of portions of 200 decisions.
    """

    waiting: int
    gpus: int
    loras: int
    median: float
    slowest: float
    queued: float


def measure(waiting: int, gpus: int, loras: int) -> Decisions:
    """Queue so many tasks, and let workers in turn take some thousand of them.

    Each worker keeps the LoRA of its last task, as its only one.
    """
    draw = random.Random(0)
    names = [f"{number:064x}" for number in range(loras)]
    scheduler = Scheduler()
    scheduler.open(1)
    began = time.process_time()
    for position in range(waiting):
        lora = draw.choice(names) if names else None
        scheduler.add(Pending(1, position, draw.choice(SIDES), lora))
    queued = time.process_time() - began
    workers = [f"gpu{number}" for number in range(gpus)]
    everybody = frozenset(workers)
    held: dict[str, frozenset[str]] = dict.fromkeys(workers, frozenset())
    for name in workers[: waiting // 2]:  # the first tasks load, as at the start of a run
        _take(scheduler, name, held, everybody)
    took = []
    for _ in range(PORTIONS):
        asking = [draw.choice(workers) for _ in range(min(PORTION, waiting // 2 // PORTIONS))]
        elsewhere = frozenset().union(*held.values())
        began = time.process_time()
        for name in asking:
            _take(scheduler, name, held, everybody, elsewhere)
        took.append((time.process_time() - began) / len(asking))
    return Decisions(
        waiting, gpus, loras, 1e6 * median(took), 1e6 * max(took), 1e6 * queued / waiting
    )


def _take(
    scheduler: Scheduler,
    name: str,
    held: dict[str, frozenset[str]],
    everybody: frozenset[str],
    elsewhere: frozenset[str] = frozenset(),
) -> None:
    worker = Worker(name, held[name], others=everybody, loras_elsewhere=elsewhere)
    task = scheduler.take(worker)
    if task is not None and isinstance(task.lora, str):
        held[name] = frozenset([task.lora])
