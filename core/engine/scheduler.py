"""Chooses the next task for a worker, from all jobs. Pure: no clock, process or I/O.

A worker is given only tasks of the model that it has loaded. Among these:

- Jobs of a higher priority come first, strictly: a lower one waits while a higher one has a task
  that the asking worker may run. Within a priority nobody starves.
- Owners of one priority share the workers equally, by expected work (`core.engine.fair_share`).
  An owner that comes anew is next, so a small job starts within one task's time behind a huge
  one of somebody else. Later a worker may stay with another owner where to switch would cost a
  LoRA load, until that one leads by `AHEAD` of its tasks: with two owners of one LoRA each, a
  load is paid back by about that many tasks. Tasks that run together are of one owner.
- The jobs of one owner are one queue, in the order of rules 1 to 4:

1. A LoRA skipped `max_passed_over` times is overdue; with more than 8 workers, in proportion more
   often. A worker switches to it once it has run N tasks since its last load. N is
   `max_passed_over` where more LoRAs are overdue than there are workers, or every task would cost
   a load; with fewer it is less, in proportion.
2. Tasks without a LoRA, or whose LoRA the asking worker holds: longest expected work first.
3. LoRAs that no worker holds before those that another one does; most remaining work first. A
   stack comes before others if the asking worker lacks fewer of its files.
4. Retries, after all fresh tasks.

Over all owners of a model counts

5. The last tasks, where workers differ in speed or LoRAs take time to load, and are no more than
   `core.engine.tail.MOST_PEERS`: each goes to the
   worker that should finish it first, dealt in the order of priority and of owners' turns. So a
   worker that is slow, or would have to load, may get nothing although tasks are waiting.

Longest-first keeps the makespan within (4/3 - 1/(3m)) of the optimum on m equal workers
(Graham 1969, "Bounds on multiprocessing timing anomalies") and, with rule 5, within 2 on
workers of any speed (Gonzalez, Ibarra and Sahni 1977, "Bounds for LPT schedules on uniform
processors"); the LoRA order saves loads.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from core.engine.pending import Key, Peer, Pending, Worker
from core.engine.priority_level import PriorityLevel
from core.engine.tail import matters_who, share_out
from core.engine.task_queue import JobHeap

FORGET = 64  # dropped tasks per call: to free ten thousand at once takes milliseconds


@dataclass(frozen=True, slots=True)
class _Job:
    owner: Hashable
    priority: int
    model: Hashable


@dataclass(slots=True)
class _Model:
    """The waiting tasks of a model, by priority. Its counts may be read by other threads.

    Attributes:
        dealt: among whom its last tasks were dealt out, and how, unless they changed since.
    """

    levels: dict[int, PriorityLevel] = field(default_factory=dict)
    tasks: int = 0
    dealt: tuple[Sequence[Peer], dict[str, set[Key]]] | None = None


class Scheduler:
    """The waiting tasks of all jobs and the choice among them.

    One thread changes it; `len` and `waiting` may be asked from any.

    Args:
        max_passed_over: how many tasks other LoRAs may take before a waiting LoRA is loaded;
            higher means fewer switches.
    """

    def __init__(self, max_passed_over: int = 32) -> None:
        self._max_passed_over = max_passed_over
        self._jobs: dict[int, _Job] = {}
        self._models: dict[Hashable, _Model] = {}
        self._count = 0
        self._since_load: dict[str, int] = {}  # leases by worker
        self._dropped: list[JobHeap] = []

    def __len__(self) -> int:
        return self._count

    def open(
        self, job: int, owner: Hashable = None, priority: int = 0, model: Hashable = None
    ) -> None:
        """Let a job's tasks be added.

        Args:
            owner: with whose other jobs it shares one portion of the devices.
            priority: higher is served first.
            model: what a worker must have loaded to run its tasks.

        Raises:
            ValueError: a job of this number is open.
        """
        if job in self._jobs:
            raise ValueError(f"job {job} is open already")
        self._jobs[job] = _Job(owner, priority, model)

    def drop(self, job: int) -> int:
        """Close a job, at its end or before: remove its waiting tasks and return how many.

        Nothing happens if the job is not open.
        """
        told = self._jobs.pop(job, None)
        model = self._models.get(told.model) if told else None
        level = model.levels.get(told.priority) if told and model else None
        if told is None or model is None or level is None:
            return 0
        dropped = level.drop(told.owner, job)
        count = sum(len(heap.entries) for heap in dropped)
        self._note_gone(told, model, count)
        self._dropped += dropped
        return count

    def add(self, task: Pending) -> None:
        """Queue a task of an open job, fresh or to be tried again.

        Raises:
            KeyError: its job is not open.
        """
        job = self._jobs[task.job]
        self._forget_some()
        model = self._models.get(job.model)
        if model is None:
            model = self._models[job.model] = _Model()
        level = model.levels.get(job.priority)
        if level is None:
            level = model.levels[job.priority] = PriorityLevel(self._max_passed_over)
        level.add(job.owner, task)
        model.tasks += 1
        model.dealt = None
        self._count += 1

    def waiting(self, model: Hashable = None) -> int:
        """How many tasks wait for a model."""
        found = self._models.get(model)
        return 0 if found is None else found.tasks

    def has_loras(self, model: Hashable = None) -> bool:
        """Some task that waits for a model needs a LoRA."""
        found = self._models.get(model)
        return found is not None and any(level.has_loras for level in found.levels.values())

    def owners(self, model: Hashable = None) -> dict[Hashable, int]:
        """Owners whose tasks wait for a model, with the highest priority of each one's tasks."""
        found = self._models.get(model)
        levels = sorted(found.levels.items()) if found is not None else []
        return {owner: priority for priority, level in levels for owner in level.owners}

    def take(self, worker: Worker) -> Pending | None:
        """Remove and return the task that `worker` should run now; None if there is none."""
        self._forget_some()
        model = self._models.get(worker.model)
        if model is None:
            return None
        share = self._share_of(worker, model)
        since_load = self._since_load.get(worker.name, 0)
        for priority in _highest_first(model):
            task, is_to_wait = model.levels[priority].take(worker, share, since_load)
            if task is not None:
                held = task.loads_nothing_on(worker)
                self._since_load[worker.name] = held * since_load + 1
                self._note_gone(self._jobs[task.job], model, 1)
                return task
            if is_to_wait:
                break
        return None

    def take_with(self, first: Pending, worker: Worker) -> Pending | None:
        """Remove and return a task that may run together with one that was just taken.

        It may be of another job of the same owner, priority and model.
        """
        job = self._jobs.get(first.job)
        model = self._models.get(job.model) if job else None
        level = model.levels.get(job.priority) if job and model else None
        if first.group is None or job is None or model is None or level is None:
            return None
        task = level.take_with(job.owner, first, worker, self._share_of(worker, model))
        if task is not None:
            self._note_gone(job, model, 1)
        return task

    def _share_of(self, worker: Worker, model: _Model) -> Collection[Key] | None:
        """The worker's share of the last tasks (rule 5); None while any task may go to anybody."""
        if not worker.peers:
            return None
        any_lora = self.has_loras(worker.model)
        if not matters_who(worker.peers, worker.load_seconds, model.tasks, any_lora):
            return None
        if model.dealt is None or model.dealt[0] is not worker.peers:
            turns = (turn for p in _highest_first(model) for turn in model.levels[p].turns())
            dealt = share_out(turns, worker.peers, worker.load_seconds)
            model.dealt = (worker.peers, dealt)
        return model.dealt[1][worker.name]

    def _note_gone(self, job: _Job, model: _Model, count: int) -> None:
        self._count -= count
        model.tasks -= count
        model.dealt = None
        if not model.levels[job.priority]:
            del model.levels[job.priority]
            if not model.levels:
                del self._models[job.model]

    def _forget_some(self) -> None:
        if self._dropped:
            entries = self._dropped[-1].entries
            del entries[-FORGET:]
            if not entries:
                self._dropped.pop()


def _highest_first(model: _Model) -> list[int]:
    return sorted(model.levels, reverse=True)
