"""Waiting tasks in the order of fresh before retried, long before short."""

import heapq
from collections.abc import Callable

from core.engine.pending import Pending, Worker

Item = tuple[int, float, int, int, Pending]
"""What a heap compares: tries, minus the work, job, position."""


def _item(task: Pending) -> Item:
    return (task.retry, -task.work, task.job, task.position, task)


class JobHeap:
    """The tasks of one job, best first, and their work."""

    __slots__ = ("items", "work")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.work = 0.0


class _JobHeaps:
    """The tasks of several jobs, read as one heap from which a job is dropped at once.

    `_heads` has the best task of each job, and entries that are out of date: those whose task is
    no longer its job's best are passed over when they come to the top.
    """

    __slots__ = ("_heads", "jobs")

    def __init__(self) -> None:
        self.jobs: dict[int, JobHeap] = {}
        self._heads: list[Item] = []

    @property
    def head(self) -> Item:
        """The best task of all; there must be one."""
        while True:
            item = self._heads[0]
            heap = self.jobs.get(item[2])
            if heap is not None and heap.items[0] is item:
                return item
            heapq.heappop(self._heads)

    def push(self, item: Item) -> None:
        heap = self.jobs.get(item[2])
        if heap is None:
            heap = self.jobs[item[2]] = JobHeap()
        heapq.heappush(heap.items, item)
        heap.work += item[4].work
        if heap.items[0] is item:
            heapq.heappush(self._heads, item)
            if len(self._heads) > 2 * len(self.jobs):
                self._heads = [h.items[0] for h in self.jobs.values()]
                heapq.heapify(self._heads)

    def pop(self) -> Item:
        item = self.head
        heap = self.jobs[item[2]]
        heapq.heappop(heap.items)
        heap.work -= item[4].work
        if heap.items:
            heapq.heapreplace(self._heads, heap.items[0])
        else:
            del self.jobs[item[2]]
        return item


class TaskQueue:
    """The tasks of one LoRA or stack, best first.

    Those that avoid the same workers share heaps: a worker that must leave thousands of them
    to the others passes over them at once.

    Attributes:
        loads: content hashes of the LoRA's files.
        work: of all its tasks.
        best: its best task, whoever may run it; kept up, for it is asked of every queue for every
            lease. Out of date while it has no task.
        taken_at: how many tasks its owner had been given when one of this LoRA was the last.
    """

    __slots__ = ("_heaps", "best", "loads", "taken_at", "work")

    best: Item

    def __init__(self, loads: frozenset[str], taken_at: int) -> None:
        self.loads = loads
        self.work = 0.0
        self.taken_at = taken_at
        self._heaps: dict[frozenset[str], _JobHeaps] = {}

    def __bool__(self) -> bool:
        return bool(self._heaps)

    @property
    def tasks(self) -> list[Pending]:
        """All of them, in no order."""
        jobs = [job for heaps in self._heaps.values() for job in heaps.jobs.values()]
        return [item[4] for job in jobs for item in job.items]

    def push(self, task: Pending) -> None:
        item = _item(task)
        if not self._heaps or item < self.best:
            self.best = item
        heaps = self._heaps.get(task.avoid)
        if heaps is None:
            heaps = self._heaps[task.avoid] = _JobHeaps()
        heaps.push(item)
        self.work += task.work

    def drop(self, job: int) -> list[JobHeap]:
        """Remove and return the tasks of a job."""
        dropped = [h.jobs.pop(job) for h in self._heaps.values() if job in h.jobs]
        self.work -= sum(heap.work for heap in dropped)
        self._tidy()
        return dropped

    def pop_for(
        self,
        worker: Worker,
        fits: Callable[[Pending], bool] | None = None,
        within: int | None = None,
    ) -> Pending | None:
        """Remove the best task that `worker` may run: one that avoids it stays for the others.

        Args:
            fits: whether it may be this one; None for any.
            within: how many to look at; None for all.
        """
        allowed = [
            heaps
            for avoid, heaps in self._heaps.items()
            if not avoid or worker.name not in avoid or worker.others <= avoid
        ]
        kept: list[tuple[_JobHeaps, Item]] = []
        found = None
        while found is None and len(kept) != within:
            heaps = min((h for h in allowed if h.jobs), key=lambda h: h.head, default=None)
            if heaps is None:
                break
            item = heaps.pop()
            if fits is None or fits(item[4]):
                found = item[4]
            else:
                kept.append((heaps, item))
        for heaps, item in kept:
            heaps.push(item)
        if found is not None:
            self.work -= found.work
            self._tidy()
        return found

    def _tidy(self) -> None:
        """Let go of empty heaps, and find the best task anew."""
        if not all(heaps.jobs for heaps in self._heaps.values()):
            self._heaps = {avoid: heaps for avoid, heaps in self._heaps.items() if heaps.jobs}
        if self._heaps:
            self.best = min([heaps.head for heaps in self._heaps.values()])
