"""The waiting tasks of one owner, in an order that saves LoRA loads (rules 1 to 4)."""

from collections.abc import Collection, Iterator

from core.engine.pending import Key, Pending, Stack, Worker, files_of
from core.engine.task_queue import JobHeap, TaskQueue

USUAL_WORKERS = 8  # with more, so many more tasks may be given before a waiting LoRA is overdue
LOOK_AT = 64  # tasks, for one that fits into a group


class OwnerQueue:
    """The tasks of all jobs of one owner at one priority for one model.

    Args:
        max_passed_over: tasks that other LoRAs may take before a waiting LoRA is overdue.
    """

    def __init__(self, max_passed_over: int) -> None:
        self._queues: dict[Stack, TaskQueue] = {}  # that was given a task longest ago first
        self._stacks = 0  # of the queues: those of several LoRAs
        self._max_passed_over = max_passed_over
        self._taken = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def tasks(self) -> list[Pending]:
        """All of them, in no order."""
        return [task for queue in self._queues.values() for task in queue.tasks]

    @property
    def has_loras(self) -> bool:
        """Whether one of the waiting tasks needs a LoRA."""
        return any(lora is not None for lora in self._queues)

    def add(self, task: Pending) -> None:
        """Queue a task, fresh, to be tried again, or put back."""
        queue = self._queues.get(task.lora)
        if queue is None:
            queue = self._queues[task.lora] = TaskQueue(files_of(task.lora), self._taken)
            self._stacks += isinstance(task.lora, frozenset)
        queue.push(task)

    def drop(self, job: int) -> list[JobHeap]:
        """Remove and return the tasks of a job."""
        dropped = [heap for queue in self._queues.values() for heap in queue.drop(job)]
        self._queues = {lora: queue for lora, queue in self._queues.items() if queue}
        self._stacks = sum(isinstance(lora, frozenset) for lora in self._queues)
        return dropped

    def pop_for(
        self, worker: Worker, share: Collection[Key] | None, since_load: int
    ) -> Pending | None:
        """Remove the task that `worker` should run next; `put_back` or `note_taken` must follow.

        Args:
            share: keys of the tasks that it may be given; None for any.
            since_load: how many tasks it has run since it loaded a LoRA.
        """
        fits = None if share is None else lambda task: task.key in share
        for lora in self._in_order(worker, since_load):
            task = self._queues[lora].pop_for(worker, fits)
            if task is not None:
                return task
        return None

    def pop_with(
        self, first: Pending, worker: Worker, share: Collection[Key] | None
    ) -> Pending | None:
        """Remove a task that may run together with one that was taken; `note_taken` must follow."""
        queue = self._queues.get(first.lora)
        if first.group is None or queue is None:
            return None
        return queue.pop_for(
            worker,
            lambda t: t.group == first.group and (share is None or t.key in share),
            within=LOOK_AT,
        )

    def put_back(self, task: Pending) -> None:
        """Undo `pop_for`: the task was not given after all, and no LoRA was passed over."""
        self.add(task)

    def note_taken(self, task: Pending) -> None:
        """Count a task that was given: the other LoRAs were passed over."""
        self._taken += 1
        queue = self._queues.pop(task.lora)
        queue.taken_at = self._taken
        if queue:
            self._queues[task.lora] = queue
        else:
            self._stacks -= isinstance(task.lora, frozenset)

    def _in_order(self, worker: Worker, since_load: int) -> Iterator[Stack]:
        """LoRAs and stacks, those first whose tasks `worker` should run first."""
        if len(self._queues) == 1:
            yield from self._queues
            return
        workers = len(worker.others) + (worker.name not in worker.others)
        skipped = self._max_passed_over * max(1.0, workers / USUAL_WORKERS)
        overdue_at = self._taken - skipped
        turns = self._turns_to_overdue(workers, since_load, overdue_at)
        held, elsewhere = worker.loras, worker.loras_elsewhere

        def rank(lora: Stack) -> tuple[float, ...]:
            queue = self._queues[lora]
            if turns and queue.taken_at <= overdue_at:
                return (0, queue.taken_at)
            retry, shortest_last = queue.best.retry, -queue.best.work
            if retry:
                return (3 + retry, shortest_last)
            missing = queue.loads
            if missing <= held:
                return (1, shortest_last)
            if len(missing) > 1:
                missing = missing - held
            return (3 if missing <= elsewhere else 2, len(missing), -queue.work)

        first = next(iter(self._queues))
        if not turns or self._queues[first].taken_at > overdue_at:
            # Most tasks load nothing. To rank hundreds of LoRAs for them would take longest of all.
            ready = [lora for lora in (None, *held) if lora in self._queues]
            ready = [lora for lora in ready if not self._queues[lora].best.retry]
            first = min(ready if ready and not self._stacks else self._queues, key=rank)
        yield first
        yield from sorted((lora for lora in self._queues if lora != first), key=rank)

    def _turns_to_overdue(self, workers: int, since_load: int, overdue_at: float) -> bool:
        """Whether a worker has run enough tasks since its last load to turn to an overdue LoRA."""
        if since_load >= self._max_passed_over:
            return True
        allowed = since_load * workers / self._max_passed_over  # LoRAs that may be overdue
        for overdue, queue in enumerate(self._queues.values()):
            if queue.taken_at > overdue_at:
                break
            if overdue + 1 > allowed:
                return False
        return True
