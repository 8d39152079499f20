"""The waiting tasks of one owner, in an order that saves LoRA loads (rules 1 to 4)."""

from collections.abc import Collection, Iterator

from core.engine.pending import Key, Pending, Stack, Worker, files_of
from core.engine.task_queue import JobHeap, TaskQueue

LOOK_AT = 64  # tasks, for one that fits into a group


class OwnerQueue:
    """The tasks of all jobs of one owner at one priority for one model.

    Args:
        max_passed_over: tasks that other LoRAs may take before a waiting LoRA is overdue.
    """

    def __init__(self, max_passed_over: int) -> None:
        self._queues: dict[Stack, TaskQueue] = {}
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
        queue.push(task)

    def drop(self, job: int) -> list[JobHeap]:
        """Remove and return the tasks of a job."""
        dropped = [heap for queue in self._queues.values() for heap in queue.drop(job)]
        self._queues = {lora: queue for lora, queue in self._queues.items() if queue}
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
        queue = self._queues[task.lora]
        queue.taken_at = self._taken
        if not queue:
            del self._queues[task.lora]

    def _in_order(self, worker: Worker, since_load: int) -> Iterator[Stack]:
        """LoRAs and stacks, those first whose tasks `worker` should run first."""
        if len(self._queues) == 1:
            yield from self._queues
            return
        overdue_at = self._taken - self._max_passed_over
        overdue = len([0 for queue in self._queues.values() if queue.taken_at <= overdue_at])
        workers = len(worker.others | {worker.name})
        turns = since_load >= self._max_passed_over * min(1.0, overdue / workers)
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

        yield min(self._queues, key=rank)  # mostly enough, and cheaper than sorting
        yield from sorted(self._queues, key=rank)[1:]
