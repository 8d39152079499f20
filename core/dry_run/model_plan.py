"""One model of a plan: its files, memory and workers, its LoRAs, its time and its results' size."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.byte_sizes import shown_bytes
from core.checkpoints.checkpoint import Checkpoint
from core.checkpoints.hub_state import HubState, bytes_to_fetch, state_of
from core.checkpoints.lora_fit import fit_of, widths_in
from core.checkpoints.safetensors_header import NotSafetensors
from core.devices.device import Device
from core.devices.memory_fit import LackOfMemory
from core.devices.model_choice import SIMULATED, checkpoint_of, is_hub_model
from core.dry_run import figures
from core.dry_run.measured import Maker, Measured, measure
from core.dry_run.planned import PlannedLora, PlannedModel, PlannedWorker
from core.dry_run.simulation import Outcome, SizedTask, play
from core.dry_run.span import NOTHING, Span
from core.errors import MultiGPUError
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.intake.admission import Admitted
from core.intake.task_kinds import USUAL_STEPS
from core.lora_paths import file_or_folder
from core.lora_stack import CheckedLora
from core.names import counted
from core.role_model import RoleModel
from core.settings import SchedulingSettings, SimulatedSettings, WorkerSettings
from core.store.ledger import Ledger
from core.tasks import EditTask, GenerateTask

USUAL_PIXELS = 1024 * 1024  # where a task leaves its size to the model
SIMULATED_PIXELS = 64 * 64
NOTHING_KNOWN = "no result of this model was made on this machine before"


class PlanSettings(Protocol):
    """What a plan reads of the settings of a run."""

    @property
    def workers(self) -> WorkerSettings: ...
    @property
    def scheduling(self) -> SchedulingSettings: ...
    @property
    def simulated(self) -> SimulatedSettings: ...


@dataclass(frozen=True)
class ToDo:
    """A task that a worker would be given.

    Attributes:
        work: expected, in the unit of its kind.
        pixels: of its picture; None where that is left to the model, or for a verdict.
        steps: of a picture, likewise.
    """

    work: float
    pixels: int | None = None
    steps: int | None = None
    loras: tuple[CheckedLora, ...] = ()
    suffix: str = ".png"

    @classmethod
    def of(cls, admitted: Admitted) -> "ToDo":
        task = admitted.task
        suffix = os.path.splitext(admitted.output.shown)[1]
        if not isinstance(task, GenerateTask | EditTask):
            return cls(admitted.work, suffix=suffix)
        pixels = task.width * task.height if task.width and task.height else None
        return cls(admitted.work, pixels, task.num_inference_steps, admitted.loras, suffix)


class ModelPlan:
    """Works out the plan of one model.

    Args:
        role: with its memory mode decided, unless that failed.
        to_do: what it would be given.
        ledger: of the output folder, or a copy of it.
        folder: the output folder, if it lasts.
        served: a daemon has it loaded.
        refusal: why it cannot work, as far as that is known already.
    """

    def __init__(
        self,
        role: RoleModel,
        to_do: Sequence[ToDo],
        settings: PlanSettings,
        ledger: Ledger,
        folder: Path | None,
        served: bool,
        refusal: MultiGPUError | None = None,
    ) -> None:
        self._role = role
        self._model = role.model
        self._to_do = to_do
        self._settings = settings
        self._served = served
        self._refusal = refusal
        self._problems = [] if refusal is None else [str(refusal)]
        self._fetch: int | None = 0
        self._index = MODEL_INDEX if role.role == "score" else PIPELINE_INDEX
        self._workers = role.devices[: len(to_do)] if not served else role.devices
        identity = self._model.deciding if role.judge is not None else role.memory.identity
        device: Device = role.devices[0]
        self._device = device
        maker = Maker(role.role, identity, self._model.memory, device.kind)
        self._measured: Measured = Measured() if served else measure(maker, ledger, folder)
        self._checkpoint: Checkpoint | None = None

    def planned(self) -> PlannedModel:
        """Everything about it."""
        files, place = self._files()
        if self._model.has_files:
            self._checkpoint = checkpoint_of(self._model, self._index, ask_hub=not self._served)
            if self._fetch is None and self._checkpoint is not None:
                name = self._model.base_model or self._model.path_or_id
                self._fetch = bytes_to_fetch(self._checkpoint, name)
                if self._fetch is not None:
                    files = f"{shown_bytes(self._fetch)} are downloaded first"
        loras = self._loras(place)
        working, basis, loads = self._time(loras)
        results, bytes_basis = self._bytes()
        fit = self._role.memory.fit
        return PlannedModel(
            self._role.role,
            self._model.identity.partition("#")[0],
            self._role.reason,
            files,
            self._fetch,
            self._memory(),
            self._memory_table(),
            dict(fit.needs.items()) if fit is not None else {},
            tuple(PlannedWorker(d.label, d.memory, d.free) for d in self._workers),
            len(self._to_do),
            loras,
            loads,
            self._loading(),
            working,
            basis,
            results,
            bytes_basis,
            tuple(self._problems),
        )

    # -- its files -------------------------------------------------------------------

    def _files(self) -> tuple[str, tuple[Path, ...] | None]:
        """Where the model's files are, in words, and as far as they are here."""
        model = self._model
        if model.path_or_id == SIMULATED:
            return "none: a simulated device", None
        if not model.has_files:
            return f"none: it is served at {model.path_or_id}", None
        if self._served:
            return "loaded by the server", None
        if model.base_model is None and not is_hub_model(model.path_or_id):
            return f"in {model.path_or_id}", (Path(model.path_or_id),)
        name = model.base_model or model.path_or_id
        own = () if model.base_model is None else (Path(model.path_or_id),)
        if not is_hub_model(name):
            return f"in {model.path_or_id}, the other parts in {name}", (*own, Path(name))
        state = state_of(name, model.revision, model.variant, self._index)
        folder = (*own, state.folder) if state.folder is not None else None
        return self._of_hub(name, state), folder

    def _of_hub(self, name: str, state: HubState) -> str:
        if state.kind == "cached":
            return f"in the cache: {state.folder}"
        if state.kind == "refused":
            self._problems.append(f"{name}: {state.why}")
            return "they cannot be had"
        self._fetch = None
        if state.kind == "unknown":
            return f"not in the cache, and {state.why}; a run would download them"
        return "downloaded first"

    def _memory(self) -> str:
        if not self._model.has_files:
            return "none"
        fit = self._role.memory.fit
        where = "host memory" if self._device.kind == "cpu" else "GPU memory"
        if self._refusal is not None:
            return "none fits" if isinstance(self._refusal, LackOfMemory) else "not decided"
        reason = fit.reason.removeprefix("Memory: ") if fit is not None else ""
        return reason or f"{self._model.memory}, in {where}"

    def _memory_table(self) -> str:
        if isinstance(self._refusal, LackOfMemory):
            return self._refusal.table
        return self._role.memory.fit.table if self._role.memory.fit is not None else ""

    # -- its LoRAs -------------------------------------------------------------------

    def _loras(self, place: tuple[Path, ...] | None) -> tuple[PlannedLora, ...]:
        """LoRAs of tasks, and those of the model itself, compared with its layers."""
        counts: Counter[str] = Counter(x.path for todo in self._to_do for x in todo.loras)
        counts.update({x.path: len(self._to_do) for x in self._model.loras})
        names = {x.path: x.name for x in self._model.loras}
        if not counts:
            return ()
        widths = widths_in(place) if place else None
        found = tuple(
            _planned_lora(names.get(path) or file_or_folder(path), path, count, widths)
            for path, count in counts.items()
        )
        self._problems += [
            f"{lora.name} cannot be put on {self._model.identity.partition('#')[0]}: {lora.problem}"
            for lora in found
            if lora.problem is not None
        ]
        return found

    # -- its time --------------------------------------------------------------------

    def _time(self, loras: Sequence[PlannedLora]) -> tuple[Span | None, str, int]:
        """Seconds for the tasks, what they are taken from, and the LoRA loads."""
        sizes = [lora.size for lora in loras]
        load = figures.lora_seconds(sum(sizes) / len(sizes)) if sizes else NOTHING
        if self._model.path_or_id == SIMULATED:
            return self._simulated()
        found = self._rate()
        likely = found[0].likely if found is not None else 1.0
        outcome = self._play(likely, load.likely)
        if found is None:
            return None, NOTHING_KNOWN, outcome.loads
        rate, basis = found
        ends = [
            self._play(at, of_lora).seconds
            for at, of_lora in ((rate.low, load.low), (rate.high, load.high))
        ]
        return Span(min(ends[0], outcome.seconds), outcome.seconds, ends[1]), basis, outcome.loads

    def _rate(self) -> tuple[Span, str] | None:
        """Seconds for a unit of work."""
        measured = self._measured.rate
        if measured is not None:
            count = len(self._measured.rates)
            results = "1 result" if count == 1 else f"{count} results"
            where = "this folder" if self._measured.here == count else "folders beside this one"
            if 0 < self._measured.here < count:
                where = "this folder and others beside it"
            few = max(1.0, 3.0 / count)  # one or two say little
            span = Span(measured.low / few, measured.likely, measured.high * few)
            return span, f"{results} that this machine made with this model before, in {where}"
        if not self._to_do:
            return None
        mean = sum(todo.work for todo in self._to_do) / len(self._to_do)
        steps = max(todo.steps or USUAL_STEPS for todo in self._to_do)
        name, mode = self._model.identity, self._model.memory
        return figures.seconds_per_work(self._checkpoint, name, self._device, mode, mean, steps)

    def _simulated(self) -> tuple[Span, str, int]:
        simulated = self._settings.simulated
        rate = simulated.seconds_per_megapixel_step
        if self._role.role == "score":
            rate = simulated.score_seconds
            tasks = [SizedTask(1.0) for _ in self._to_do]
        else:
            tasks = [
                SizedTask((t.pixels or SIMULATED_PIXELS) / 1e6 * (t.steps or 1), _stack(t.loras))
                for t in self._to_do
            ]
        outcome = self._play(rate, simulated.lora_load_seconds, tasks)
        span = Span.exactly(outcome.seconds)
        spread = Span(1 - simulated.jitter, 1.0, 1 + simulated.jitter)
        span = Span(span.low * spread.low, span.likely, span.high * spread.high)
        return span, "the settings of the simulated devices", outcome.loads

    def _play(self, rate: float, load: float, tasks: Sequence[SizedTask] | None = None) -> Outcome:
        if tasks is None:
            tasks = [SizedTask(todo.work, _stack(todo.loras)) for todo in self._to_do]
        return play(
            tasks,
            len(self._workers),
            rate,
            load,
            self._settings.workers.max_resident_loras,
            self._settings.scheduling.max_passed_over,
        )

    def _loading(self) -> Span | None:
        if self._served:
            return NOTHING
        if self._model.path_or_id == SIMULATED:
            seconds = self._settings.simulated.load_seconds
            return Span(seconds, seconds + 0.5, seconds + 5.0)
        if not self._model.has_files:
            return Span(0.5, 1.0, 5.0)  # a light worker's start
        return figures.load_seconds(self._checkpoint, self._model.identity, self._device.kind)

    # -- what it writes --------------------------------------------------------------

    def _bytes(self) -> tuple[Span, str]:
        """Bytes of the results."""
        usual = USUAL_PIXELS if self._model.path_or_id != SIMULATED else SIMULATED_PIXELS
        pixels = [todo.pixels or usual for todo in self._to_do]
        measured = self._measured.size
        if measured is not None:
            whole = sum(pixels) if self._role.role != "score" else len(pixels)
            basis = counted(len(self._measured.sizes), "result")
            return measured * whole, f"{basis} of this model"
        if self._role.role == "score":
            return figures.VERDICT * len(pixels), "verdicts of usual length"
        each = zip(self._to_do, pixels, strict=True)
        span = sum((figures.picture_bytes(todo.suffix) * count for todo, count in each), NOTHING)
        return span, "pictures of usual content"


def _stack(loras: Sequence[CheckedLora]) -> frozenset[str] | str | None:
    hashes = frozenset(lora.sha256 for lora in loras)
    return next(iter(hashes)) if len(hashes) == 1 else hashes or None


def _planned_lora(name: str, path: str, tasks: int, widths: frozenset[int] | None) -> PlannedLora:
    file = Path(path)
    try:
        fit = fit_of(file, widths)
        size = file.stat().st_size
    except (OSError, NotSafetensors, MultiGPUError):  # gone, or not here yet: its tasks will say so
        return PlannedLora(name, path, tasks, 0)
    return PlannedLora(name, path, tasks, size, fit.problem, widths is not None)
