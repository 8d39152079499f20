"""Waiting tasks in the order of fresh before retried, long before short."""

import heapq
from collections.abc import Callable

from core.engine.pending import Pending, Worker

ANYWHERE: frozenset[str] = frozenset()  # what a task avoids that any worker may run


class JobHeap:
    """The tasks of one job, best first, and their work.

    Attributes:
        entries: a heap of tasks behind what they are compared by. Tuples of numbers are compared
            without a call of Python's for each of the twenty looks that a decision takes.
    """

    __slots__ = ("entries", "work")

    def __init__(self) -> None:
        self.entries: list[tuple[int, float, int, Pending]] = []
        self.work = 0.0

    @property
    def tasks(self) -> list[Pending]:
        """All of them, in no order."""
        return [entry[3] for entry in self.entries]

    @property
    def best(self) -> Pending:
        return self.entries[0][3]

    def push(self, task: Pending) -> None:
        heapq.heappush(self.entries, (task.retry, -task.work, task.position, task))
        self.work += task.work

    def pop(self) -> None:
        """Remove the best task."""
        self.work -= heapq.heappop(self.entries)[3].work


class _JobHeaps:
    """The tasks of several jobs, read as one heap from which a job is dropped at once.

    `_heads` has the best task of each job, and entries that are out of date: those whose task is
    no longer its job's best are passed over when they come to the top.
    """

    __slots__ = ("_heads", "jobs")

    def __init__(self) -> None:
        self.jobs: dict[int, JobHeap] = {}
        self._heads: list[Pending] = []

    @property
    def head(self) -> Pending:
        """The best task of all; there must be one."""
        while True:
            task = self._heads[0]
            heap = self.jobs.get(task.job)
            if heap is not None and heap.entries[0][3] is task:
                return task
            heapq.heappop(self._heads)

    def push(self, task: Pending) -> None:
        heap = self.jobs.get(task.job)
        if heap is None:
            heap = self.jobs[task.job] = JobHeap()
        heap.push(task)
        if heap.best is task:
            heapq.heappush(self._heads, task)
            if len(self._heads) > 2 * len(self.jobs):
                self._heads = [h.best for h in self.jobs.values()]
                heapq.heapify(self._heads)

    def pop(self) -> Pending:
        task = self.head
        heap = self.jobs[task.job]
        heap.pop()
        if heap.entries:
            heapq.heapreplace(self._heads, heap.best)
        else:
            del self.jobs[task.job]
        return task


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

    __slots__ = ("_fresh_avoids", "_heaps", "best", "loads", "taken_at", "work")

    best: Pending

    def __init__(self, loads: frozenset[str], taken_at: int) -> None:
        self.loads = loads
        self.work = 0.0
        self.taken_at = taken_at
        self._heaps: dict[frozenset[str], _JobHeaps] = {}
        self._fresh_avoids = False  # whether a task that avoids a worker was ever a fresh one

    def __bool__(self) -> bool:
        return bool(self._heaps)

    @property
    def tasks(self) -> list[Pending]:
        """All of them, in no order."""
        jobs = [job for heaps in self._heaps.values() for job in heaps.jobs.values()]
        return [task for job in jobs for task in job.tasks]

    def push(self, task: Pending) -> None:
        if not self._heaps or task < self.best:
            self.best = task
        heaps = self._heaps.get(task.avoid)
        if heaps is None:
            heaps = self._heaps[task.avoid] = _JobHeaps()
        heaps.push(task)
        self.work += task.work
        self._fresh_avoids |= bool(task.avoid) and not task.retry

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
        kept: list[tuple[_JobHeaps, Pending]] = []
        found = allowed = None
        while found is None and len(kept) != within:
            heaps = self._fresh
            if heaps is None:
                if allowed is None:
                    allowed = self._allowed(worker)
                heaps = min((h for h in allowed if h.jobs), key=lambda h: h.head, default=None)
            if heaps is None:
                break
            task = heaps.pop()
            if fits is None or fits(task):
                found = task
            else:
                kept.append((heaps, task))
        for heaps, task in kept:
            heaps.push(task)
        if found is not None:
            self.work -= found.work
            self._tidy()
        return found

    def _allowed(self, worker: Worker) -> list[_JobHeaps]:
        return [
            heaps
            for avoid, heaps in self._heaps.items()
            if not avoid or worker.name not in avoid or worker.others <= avoid
        ]

    @property
    def _fresh(self) -> _JobHeaps | None:
        """Tasks that any worker may run and of which the best is the best of all; None if unknown.

        Those that avoid a worker have been tried, and wait for the fresh ones: in a long run there
        are hundreds, each with a worker of its own to avoid, which need not be looked at.
        """
        free = self._heaps.get(ANYWHERE)
        known = free is not None and free.jobs and not free.head.retry and not self._fresh_avoids
        return free if known else None

    def _tidy(self) -> None:
        """Let go of empty heaps, and find the best task anew."""
        if (fresh := self._fresh) is not None:
            self.best = fresh.head
            return
        if not all(heaps.jobs for heaps in self._heaps.values()):
            self._heaps = {avoid: heaps for avoid, heaps in self._heaps.items() if heaps.jobs}
        if self._heaps:
            self.best = min([heaps.head for heaps in self._heaps.values()])
