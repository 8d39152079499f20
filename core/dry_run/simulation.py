"""A run played through in advance by the engine's own scheduler: its end and its LoRA loads."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from core.engine.pending import Peer, Pending, Stack, Worker, files_of
from core.engine.scheduler import Scheduler

MOST_TASKS = 5000  # that are played through one by one, in half a second


@dataclass(frozen=True)
class SizedTask:
    """What of a task decides how long it takes; see `core.engine.pending.Pending`."""

    work: float
    lora: Stack = None


@dataclass(frozen=True)
class Outcome:
    """How it ends.

    Attributes:
        seconds: until the last task has ended, after the models are loaded.
        loads: of LoRAs, by all workers together.
    """

    seconds: float
    loads: int


def play(
    tasks: Sequence[SizedTask],
    workers: int,
    seconds_per_work: float,
    load_seconds: float,
    resident: int,
    max_passed_over: int,
) -> Outcome:
    """Play a run through.

    Of very many tasks some are left out, evenly, and count through the others.

    Args:
        load_seconds: of one LoRA.
        resident: how many LoRAs a worker keeps.
    """
    played, stride = list(tasks), 1
    if len(tasks) > MOST_TASKS:
        stride = -(-len(tasks) // MOST_TASKS)
        played = list(tasks[::stride])
    if not played or workers < 1:
        return Outcome(0.0, 0)
    outcome = _play(
        played, workers, seconds_per_work * stride, load_seconds, resident, max_passed_over
    )
    if stride == 1:
        return outcome
    # Work is the whole's, whatever was left out.
    share = sum(task.work for task in tasks) / (stride * sum(task.work for task in played) or 1.0)
    return Outcome(outcome.seconds * share, outcome.loads)


def _play(
    tasks: Sequence[SizedTask],
    workers: int,
    seconds_per_work: float,
    load_seconds: float,
    resident: int,
    max_passed_over: int,
) -> Outcome:
    scheduler = Scheduler(max_passed_over)
    scheduler.open(0)
    for position, task in enumerate(tasks):
        scheduler.add(Pending(0, position, task.work, task.lora))
    names = [str(number) for number in range(workers)]
    held: list[dict[str, None]] = [{} for _ in names]  # LoRAs, the least recently used first
    free = [0.0] * workers
    queue = [(0.0, place) for place in range(workers)]
    loads, end = 0, 0.0
    while queue and len(scheduler):
        now, place = heapq.heappop(queue)
        given = scheduler.take(
            _asking(names, place, held, free, now, seconds_per_work, load_seconds)
        )
        if given is None:  # what is left should end sooner elsewhere: it asks again when others do
            if queue:
                heapq.heappush(queue, (max(queue[0][0], now + 1e-9), place))
                continue
            break
        wanted = files_of(given.lora)
        new = wanted - held[place].keys()
        loads += len(new)
        for lora in sorted(wanted):
            held[place].pop(lora, None)
            held[place][lora] = None
        while len(held[place]) > max(resident, len(wanted)):
            del held[place][next(iter(held[place]))]
        free[place] = now + given.work * seconds_per_work + len(new) * load_seconds
        end = max(end, free[place])
        heapq.heappush(queue, (free[place], place))
    return Outcome(end, loads)


def _asking(
    names: Sequence[str],
    place: int,
    held: Sequence[dict[str, None]],
    free: Sequence[float],
    now: float,
    seconds_per_work: float,
    load_seconds: float,
) -> Worker:
    peers = tuple(
        Peer(name, max(0.0, free[i] - now), seconds_per_work, frozenset(held[i]))
        for i, name in enumerate(names)
    )
    others = [i for i in range(len(names)) if i != place]
    return Worker(
        names[place],
        frozenset(held[place]),
        frozenset(names[i] for i in others),
        frozenset().union(*(held[i].keys() for i in others)),
        peers,
        load_seconds,
    )
