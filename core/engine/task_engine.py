"""What a run asks of an engine: workers here (`core.engine.engine`), or a daemon's."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from core.engine.job import Job
from core.engine.recorder import Recorder
from core.events import Listener
from core.intake.admission import Admitted
from core.tasks import Result

if TYPE_CHECKING:  # an engine elsewhere needs nothing of these
    from core.engine.served_model import ServedModel
    from core.engine.snapshot import EngineSnapshot


class TaskEngine(Protocol):
    """Takes jobs, and gives each of their tasks its one result; see `core.engine.engine.Engine`."""

    def start(self) -> None:
        """Begin to work; returns at once."""

    def add_model(self, model: "ServedModel") -> None:
        """Serve one more model."""

    def submit(
        self,
        admitted: Iterable[Admitted],
        recorder: Recorder,
        settled: Sequence[Result] = (),
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        sealed: bool = True,
        promised: int = 0,
        previews: int = 0,
    ) -> Job:
        """Take a job."""

    def extend(
        self, job: Job, admitted: Iterable[Admitted], settled: Sequence[Result] = ()
    ) -> None:
        """Add tasks to a job that is not sealed yet."""

    def expect(self, job: Job, model: str, tasks: int) -> None:
        """Say how many tasks for a model a job will still be given."""

    def seal(self, job: Job) -> None:
        """Add no more tasks to a job."""

    def stop(self, at_once: bool = False) -> None:
        """End all jobs, and wait until what they wrote is recorded."""

    def warm(self, name: str) -> None:
        """Have a model loaded before there are tasks for it."""

    def unload(self, name: str) -> None:
        """Let a model go for which no task waits."""

    def drain(self, worker: str) -> None:
        """Give a worker nothing more."""

    def undrain(self, worker: str) -> None:
        """Let a drained worker come back."""

    def snapshot(self) -> "Future[EngineSnapshot]":
        """How workers and models stand."""

    @property
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches so far."""

    @property
    def device_waits(self) -> list[float]:
        """Seconds for which devices had nothing to do before each of their newest tasks."""

    @property
    def waits_in_step(self) -> list[tuple[float, int]]:
        """For each model whose workers wait for each other: worker-seconds waited, and steps."""
