"""The waiting tasks of one model at one priority: whose turn it is, and with which task."""

from collections.abc import Collection, Hashable, Iterator

from core.engine.fair_share import FairShare
from core.engine.owner_queue import OwnerQueue
from core.engine.pending import Key, Pending, Worker
from core.engine.task_queue import JobHeap

AHEAD = 8  # tasks by which an owner may lead where to give way would cost a LoRA load


class PriorityLevel:
    """Owners in turn, each with a queue of its own.

    Args:
        max_passed_over: tasks that other LoRAs may take before a waiting LoRA is overdue.
    """

    def __init__(self, max_passed_over: int) -> None:
        self._max_passed_over = max_passed_over
        self._queues: dict[Hashable, OwnerQueue] = {}
        self._with: dict[str, Hashable] = {}  # the owner that each worker served last
        self._fair = FairShare()

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def owners(self) -> list[Hashable]:
        """Owners that have tasks here."""
        return list(self._queues)

    @property
    def has_loras(self) -> bool:
        """Whether one of the waiting tasks needs a LoRA."""
        return any(queue.has_loras for queue in self._queues.values())

    def turns(self) -> Iterator[list[Pending]]:
        """The tasks of each owner, those first whose turn it is."""
        for owner in self._fair.in_turn():
            yield self._queues[owner].tasks

    def add(self, owner: Hashable, task: Pending) -> None:
        """Queue a task, fresh or to be tried again."""
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = OwnerQueue(self._max_passed_over)
            self._fair.join(owner)
        queue.add(task)

    def drop(self, owner: Hashable, job: int) -> list[JobHeap]:
        """Remove and return the tasks of a job."""
        queue = self._queues.get(owner)
        if queue is None:
            return []
        dropped = queue.drop(job)
        self._leave_if_empty(owner)
        return dropped

    def take(
        self, worker: Worker, share: Collection[Key] | None, since_load: int
    ) -> tuple[Pending | None, bool]:
        """Remove and return the task that `worker` should run now.

        Args:
            share: keys of the tasks that it may be given; None for any.
            since_load: how many tasks it has run since it loaded a LoRA.

        Returns:
            The task or None, and whether there is one that it may have later: it is to wait.
        """
        for turn in self._fair.in_turn():
            task = self._queues[turn].pop_for(worker, share, since_load)
            if task is None:
                continue
            if not worker.may_have(task):
                self._queues[turn].put_back(task)
                return None, True
            owner = turn
            if not task.loads_nothing_on(worker) and not self._fair.is_new(turn):
                stayed = self._stay(worker, share, since_load, turn)
                if stayed is not None:
                    self._queues[turn].put_back(task)
                    owner, task = stayed
            self._fair.serve(owner, task.work, turn)
            self._with[worker.name] = owner
            self._note_taken(owner, task)
            return task, False
        return None, False

    def take_with(
        self, owner: Hashable, first: Pending, worker: Worker, share: Collection[Key] | None
    ) -> Pending | None:
        """Remove and return a task of the same owner that may run together with `first`."""
        queue = self._queues.get(owner)
        task = None if queue is None else queue.pop_with(first, worker, share)
        if task is not None:
            self._fair.charge(owner, task.work)
            self._note_taken(owner, task)
        return task

    def _stay(
        self, worker: Worker, share: Collection[Key] | None, since_load: int, turn: Hashable
    ) -> tuple[Hashable, Pending] | None:
        """The next task of the owner that `worker` is with, where that costs no load.

        That owner may lead the one whose turn it is by so many of its tasks, and no more.
        """
        owner = self._with.get(worker.name)
        queue = self._queues.get(owner)
        if queue is None or owner == turn:
            return None
        task = queue.pop_for(worker, share, since_load)
        if task is None:
            return None
        within = self._fair.lead(owner, turn) <= (AHEAD - 1) * task.work
        if within and task.loads_nothing_on(worker) and worker.may_have(task):
            return owner, task
        queue.put_back(task)
        return None

    def _note_taken(self, owner: Hashable, task: Pending) -> None:
        self._queues[owner].note_taken(task)
        self._leave_if_empty(owner)

    def _leave_if_empty(self, owner: Hashable) -> None:
        if not self._queues[owner]:
            del self._queues[owner]
            self._fair.leave(owner)
