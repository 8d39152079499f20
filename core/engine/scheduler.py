"""Which task next, for which worker. Pure: no clock, no process, no I/O.

Policy, in this order:
1. A LoRA whose tasks were passed over `max_passed_over` times is due. A worker turns to it
   once it has had its share of leases without a load; where more LoRAs are due than there are
   workers, that is `max_passed_over`, or every task would cost a load.
2. Tasks without a LoRA, or whose LoRA the asking worker holds: longest expected work first.
3. LoRAs that no worker holds before those that another one does; most remaining work first. Of
   stacks those come first of which the asking worker lacks the fewest files.
4. Retries, after all fresh tasks.
5. The last tasks, where workers differ in speed or LoRAs take time to load: each goes to the
   worker that should finish it first, so one that is slow, or would have to load, may get
   nothing although tasks are waiting.

Longest-first keeps the makespan within (4/3 - 1/(3m)) of the optimum on m equal workers
(Graham 1969, "Bounds on multiprocessing timing anomalies") and, with rule 5, within 2 on
workers of any speed (Gonzalez, Ibarra and Sahni 1977, "Bounds for LPT schedules on uniform
processors"); the LoRA order saves loads.
"""

import heapq
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

LOOK_AT = 64  # tasks, for one that fits into a group
TAIL = 3  # tasks per worker: with no more waiting, rule 5 counts
Stack = str | frozenset[str] | None
"""What a task loads: content hash of its LoRA, those of several, or None."""
SAME_SPEED = 1.15  # how much slower a worker may be before it counts as slower


@dataclass(frozen=True)
class Pending:
    """One task that waits for a lease.

    Attributes:
        position: its place in the input; what `take` returns.
        work: expected work in any unit, the same for all tasks.
        lora: content hash of its LoRA, those of its stack, or None.
        retry: how often it was tried; retries go behind all fresh tasks of their LoRA.
        avoid: workers that should rather not run it again.
        group: equal for tasks that may run together; None for one that runs alone.
        suspect: it must not run while its worker has anything else.
    """

    position: int
    work: float
    lora: Stack = None
    retry: int = 0
    avoid: frozenset[str] = frozenset()
    group: Hashable | None = None
    suspect: bool = False

    @property
    def order(self) -> tuple[int, float, int]:
        return (self.retry, -self.work, self.position)


@dataclass(frozen=True)
class Peer:
    """A worker as the others see it: when it should be free, how fast it is, what it holds then."""

    name: str
    free_in: float  # seconds
    seconds_per_work: float
    loras: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Worker:
    """The asking worker: its name, its LoRAs, and what else is there.

    Attributes:
        others: names of the other workers that take leases now.
        peers: it and the others with their speed; none where speeds are not known yet.
        load_seconds: what it takes to load a LoRA.
        has_others: it has something else to draw or to save.
        most_work: of a task that it may be given; where the next one is longer, it gets none.
    """

    name: str
    loras: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    loras_elsewhere: frozenset[str] = frozenset()
    peers: tuple[Peer, ...] = ()
    load_seconds: float = 0.0
    has_others: bool = False
    most_work: float = math.inf

    def may_have(self, task: Pending) -> bool:
        """The task may be given to it now."""
        return task.work <= self.most_work and not (task.suspect and self.has_others)


_Item = tuple[tuple[int, float, int], Pending]


@dataclass
class _Queue:
    """The tasks of one LoRA or stack, best first; `loads` are its files.

    Those that avoid the same workers share a heap: a worker that must leave thousands of them
    to the others passes over them at once.
    """

    loads: frozenset[str] = frozenset()
    heaps: dict[frozenset[str], list[_Item]] = field(default_factory=dict)
    work: float = 0.0
    passed_over: int = 0

    def push(self, task: Pending) -> None:
        heapq.heappush(self.heaps.setdefault(task.avoid, []), (task.order, task))
        self.work += task.work

    @property
    def best(self) -> tuple[int, float, int]:
        """The order of its best task, whoever may run it."""
        if len(self.heaps) == 1:  # mostly, and it is asked of every queue for every lease
            return next(iter(self.heaps.values()))[0][0]
        return min([heap[0][0] for heap in self.heaps.values()])

    @property
    def tasks(self) -> list[Pending]:
        return [task for heap in self.heaps.values() for _, task in heap]

    def pop_for(
        self, worker: Worker, fits: Callable[[Pending], bool], within: int | None = None
    ) -> Pending | None:
        """The best task that `worker` may run: one that avoids it stays for the others.

        Args:
            fits: whether it may be this one.
            within: how many to look at; None for all.
        """
        allowed = [
            heap
            for avoid, heap in self.heaps.items()
            if worker.name not in avoid or worker.others <= avoid
        ]
        kept: list[tuple[list[_Item], _Item]] = []
        found = None
        while found is None and len(kept) != within:
            heap = min((h for h in allowed if h), key=lambda h: h[0][0], default=None)
            if heap is None:
                break
            item = heapq.heappop(heap)
            if fits(item[1]):
                found = item[1]
            else:
                kept.append((heap, item))
        for heap, item in kept:
            heapq.heappush(heap, item)
        if found is not None:
            self.work -= found.work
            if not self.heaps[found.avoid]:
                del self.heaps[found.avoid]
        return found


class Scheduler:
    """Pending tasks and the choice among them.

    Args:
        max_passed_over: leases given to other LoRAs before a waiting LoRA is due.
    """

    def __init__(self, tasks: Iterable[Pending] = (), max_passed_over: int = 32) -> None:
        self._queues: dict[Stack, _Queue] = {}
        # Counted, not summed up: another thread may ask while this one changes the queues.
        self._count = 0
        self._max_passed_over = max_passed_over
        self._since_load: dict[str, int] = {}  # leases by worker
        for task in tasks:
            self.add(task)

    def __len__(self) -> int:
        return self._count

    def add(self, task: Pending) -> None:
        """Queue a task, fresh or to be tried again."""
        queue = self._queues.get(task.lora)
        if queue is None:
            queue = self._queues[task.lora] = _Queue(files_of(task.lora))
        queue.push(task)
        self._count += 1

    def take(self, worker: Worker) -> Pending | None:
        """Remove and return the task that `worker` should run now; None if there is none."""
        share = self._share_of(worker)
        for lora in self._preference(worker):
            task = self._queues[lora].pop_for(
                worker, lambda t: share is None or t.position in share
            )
            if task is not None and not worker.may_have(task):
                self._queues[lora].push(task)
                return None
            if task is not None:
                held = self._queues[lora].loads <= worker.loras
                self._since_load[worker.name] = held * self._since_load.get(worker.name, 0) + 1
                self._note_taken(lora)
                return task
        return None

    def take_with(self, first: Pending, worker: Worker) -> Pending | None:
        """Remove and return a task that may run together with one that was just taken."""
        queue = self._queues.get(first.lora)
        if first.group is None or queue is None:
            return None
        share = self._share_of(worker)
        task = queue.pop_for(
            worker,
            lambda t: t.group == first.group and (share is None or t.position in share),
            within=LOOK_AT,
        )
        if task is not None:
            self._note_taken(first.lora)
        return task

    def _share_of(self, worker: Worker) -> Collection[int] | None:
        """Rule 5; None while every task may go to anybody."""
        speeds = [peer.seconds_per_work for peer in worker.peers]
        if not speeds or len(self) > TAIL * len(speeds):
            return None
        loads = worker.load_seconds > 0 and any(lora is not None for lora in self._queues)
        if not loads and max(speeds) <= SAME_SPEED * min(speeds):
            return None
        waiting = [task for queue in self._queues.values() for task in queue.tasks]
        return share_out(waiting, worker.peers, worker.load_seconds)[worker.name]

    def _preference(self, worker: Worker) -> list[Stack]:
        due = {n for n, q in self._queues.items() if q.passed_over >= self._max_passed_over}
        workers = len(worker.others | {worker.name})
        share = self._max_passed_over * min(1.0, len(due) / workers)
        turns = self._since_load.get(worker.name, 0) >= share

        def rank(lora: Stack) -> tuple[float, ...]:
            queue = self._queues[lora]
            retry, shortest_last, _ = queue.best
            if turns and lora in due:
                return (0, -queue.passed_over)
            if retry:
                return (3 + retry, shortest_last)
            missing = queue.loads
            if missing <= worker.loras:
                return (1, shortest_last)
            if len(missing) > 1:
                missing = missing - worker.loras
            return (3 if missing <= worker.loras_elsewhere else 2, len(missing), -queue.work)

        return sorted(self._queues, key=rank)

    def _note_taken(self, taken: Stack) -> None:
        self._count -= 1
        for lora, queue in self._queues.items():
            queue.passed_over = 0 if lora == taken else queue.passed_over + 1
        if not self._queues[taken].heaps:
            del self._queues[taken]


def files_of(lora: Stack) -> frozenset[str]:
    """Content hashes of what it loads."""
    if isinstance(lora, str):
        return frozenset((lora,))
    return lora or frozenset()


def share_out(
    tasks: Iterable[Pending], peers: Sequence[Peer], load_seconds: float = 0.0
) -> dict[str, set[int]]:
    """Positions by worker: longest task first, each to whom it should be finished by first.

    All tasks of a LoRA or stack stay together where everything ends sooner so.
    """
    ordered = sorted(tasks, key=lambda t: (t.retry, -t.work, _name(t.lora), t.position))
    deals = [_Deal([[task] for task in ordered], peers, load_seconds)]
    if load_seconds:
        pieces: dict[Hashable, list[Pending]] = {}
        for task in ordered:
            alike = (task.lora, task.avoid) if task.lora else task.position
            pieces.setdefault(alike, []).append(task)
        longest = sorted(pieces.values(), key=lambda piece: -sum(t.work for t in piece))
        deals.append(_Deal(longest, peers, load_seconds))
    return min(deals, key=lambda deal: deal.end).shares


def _name(lora: Stack) -> str:
    return lora or "" if isinstance(lora, str | None) else " ".join(sorted(lora))


class _Deal:
    """Pieces of work dealt out in order, each to the worker that should finish it first.

    The tasks of a piece agree in LoRA and in whom they avoid.
    """

    def __init__(
        self, pieces: Iterable[Sequence[Pending]], peers: Sequence[Peer], load_seconds: float
    ) -> None:
        self._load_seconds = load_seconds
        self._ends = {peer.name: peer.free_in for peer in peers}
        self._speed = {peer.name: peer.seconds_per_work for peer in peers}
        self._loras: dict[str, set[str]] = {p.name: {*p.loras} for p in peers}
        self.shares: dict[str, set[int]] = {peer.name: set() for peer in peers}
        for piece in pieces:
            self._deal(piece)

    @property
    def end(self) -> float:
        return max(self._ends.values())

    def _deal(self, piece: Sequence[Pending]) -> None:
        work, avoid = sum(task.work for task in piece), piece[0].avoid
        loads = files_of(piece[0].lora)
        able = [name for name in self._ends if name not in avoid] or [*self._ends]
        end, best = min((self._end_of(name, work, loads), name) for name in able)
        self._ends[best] = end
        self._loras[best] |= loads
        self.shares[best] |= {task.position for task in piece}

    def _end_of(self, name: str, work: float, loads: frozenset[str]) -> float:
        load = len(loads - self._loras[name]) * self._load_seconds
        return self._ends[name] + load + work * self._speed[name]
