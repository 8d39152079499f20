"""What a run would do, as an object: each input, each model, what it takes, and what is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.dry_run.span import NOTHING, Span
from core.intake.differences import Change
from core.intake.plan_summary import PlanSummary, Standing
from core.worker_spec import Role


@dataclass(frozen=True)
class PlannedTask:
    """One input.

    Attributes:
        position: its place in the input, from 0.
        kind: generate, edit or score; None for one that cannot be read so far.
        standing: new, changed, unchanged, refused, …: see `core.intake.plan_summary.Standing`.
        changes: what it differs by from the result that is there.
        output_path: relative to the output folder; None for one that cannot be used.
        error: why it cannot be used.
    """

    position: int
    task_id: str
    kind: str | None
    standing: Standing
    changes: tuple[Change, ...] = ()
    output_path: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class PlannedLora:
    """A LoRA of some tasks.

    Attributes:
        tasks: that are to be done and use it.
        size: bytes of the file.
        problem: why it cannot be of the model.
        checked: its layers were compared with the model's; otherwise its worker will say.
    """

    name: str
    path: str
    tasks: int
    size: int
    problem: str | None = None
    checked: bool = False


@dataclass(frozen=True)
class PlannedWorker:
    """A worker and the memory of its device, in bytes; 0 and None where that is not known."""

    name: str
    memory: int = 0
    free: int | None = None


@dataclass(frozen=True)
class PlannedModel:
    """What does the tasks of one kind, and what that takes.

    Attributes:
        name: of the model.
        why: how it came to be this one.
        files: where its files are, as text.
        fetch: bytes that are downloaded first; 0 for none, None where the hub did not say.
        memory: the memory mode; see docs/MEMORY_MODES.md.
        memory_table: what each mode needs and what is free, in lines; empty where not known.
        needs: bytes of GPU memory by mode.
        workers: those that would work.
        tasks: to be done with it.
        loads: of LoRAs, by all workers together.
        loading: seconds until the workers have it ready; None where nothing says.
        working: seconds for the tasks, from then on; None where nothing says.
        basis: what these seconds are taken from.
        bytes: of the results.
        bytes_basis: what these are taken from.
        problems: why it could not work.
    """

    kind: Role
    name: str
    why: str
    files: str
    fetch: int | None
    memory: str
    memory_table: str
    needs: Mapping[str, int]
    workers: tuple[PlannedWorker, ...]
    tasks: int
    loras: tuple[PlannedLora, ...]
    loads: int
    loading: Span | None
    working: Span | None
    basis: str
    bytes: Span
    bytes_basis: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """What a run would do.

    Attributes:
        folder: the output folder; None where results lie anywhere.
        summaries: how many inputs are new, changed, …, for each stage with its title.
        tasks: every input, in order.
        models: one for each kind of task that is to be done.
        free: bytes on the output folder's disk; None where that is not known.
        in_use_by: the run that works in the folder now.
        server: the daemon that would do the work.
        problems: what would stop the run or fail some of its tasks, beside tasks that cannot be
            used and what the models say.
        notes: what else there is to know.
        noun: what the inputs are called, in the plural.
    """

    folder: str | None
    summaries: Sequence[tuple[str, PlanSummary]]
    tasks: Sequence[PlannedTask]
    models: Sequence[PlannedModel]
    free: int | None = None
    in_use_by: str | None = None
    server: str | None = None
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    noun: str = field(default="tasks", compare=False)

    @property
    def unusable(self) -> list[PlannedTask]:
        """Inputs that cannot be used, each with its error."""
        return [task for task in self.tasks if task.standing == "refused"]

    @property
    def all_problems(self) -> list[str]:
        """Everything that is wrong, beside inputs that cannot be used."""
        own = [f"{m.kind}: {problem}" for m in self.models for problem in m.problems]
        return [*self.problems, *own]

    @property
    def is_valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.unusable and not self.all_problems

    @property
    def to_do(self) -> int:
        """How many tasks workers would be given."""
        return sum(model.tasks for model in self.models)

    @property
    def seconds(self) -> Span | None:
        """Seconds from start to end, downloads apart; None where a model's speed is not known."""
        whole = NOTHING
        for model in self.models:
            if model.working is None:
                return None
            whole += model.working + (model.loading or NOTHING)
        return whole

    @property
    def bytes(self) -> Span:
        """Bytes of all results."""
        return sum((model.bytes for model in self.models), NOTHING)
