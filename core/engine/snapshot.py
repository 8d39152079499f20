"""How an engine stands at one moment: workers and models, for whoever watches or runs it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.devices.device import Device
from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.task_state import ActiveAttempt
from core.engine.worker_slot import WorkerSlot


@dataclass(frozen=True)
class TaskInHand:
    """A task that a worker has.

    Attributes:
        job: number of its job in the engine.
        doing: `running` on the device, `next` in the worker's queue, or `saving`.
    """

    task_id: str
    job: int
    doing: str


@dataclass(frozen=True)
class WorkerSnapshot:
    """One worker's place.

    Attributes:
        state: a few words, such as `ready`, `loading the model`, `given up` or `drained`.
        drained: it is given no more tasks until somebody says otherwise.
        role: of the model that it has, loads, or had last; None before its first.
        model: what users call that one: hub id, or folder.
        loras: names of the LoRAs that it holds.
        busy_for: seconds since its device began what it runs; 0 while it runs nothing.
        restarts: deaths of its workers that nobody had ordered for a change of model or the end.
        unfit: why it serves its model no more; None while it may.
    """

    name: str
    device: Device
    state: str
    drained: bool
    role: str | None
    model: str | None
    loras: tuple[str, ...]
    tasks: tuple[TaskInHand, ...]
    busy_for: float
    restarts: int
    unfit: str | None


@dataclass(frozen=True)
class ModelSnapshot:
    """One model that the engine serves.

    Attributes:
        waiting: tasks that wait for a worker.
        loads: how often a worker has loaded it.
        switches: how often it took the place of another model on a worker.
        load_seconds: from the start of a worker until it was loaded, last measured.
        given_up: why nobody serves it any more; None while somebody may.
    """

    role: str
    waiting: int
    loads: int
    switches: int
    load_seconds: float | None
    lora_loads: int
    lora_switches: int
    given_up: str | None


@dataclass(frozen=True)
class LoraSnapshot:
    """One LoRA of a model: held by a worker, pinned, or wanted in vain.

    Attributes:
        path: where it was last found; None where no worker was told.
        workers: names of those that hold it.
        pinned: all workers of the model hold it, or are to, for as long as they have the model.
        problems: by worker, why that one does not hold it as it should.
    """

    sha256: str
    path: str | None
    role: str
    workers: tuple[str, ...]
    pinned: bool
    problems: Mapping[str, str]


@dataclass(frozen=True)
class EngineSnapshot:
    """Workers and models of an engine at one moment."""

    workers: tuple[WorkerSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()
    loras: tuple[LoraSnapshot, ...] = ()


def snapshot(
    slots: Sequence[WorkerSlot], models: Mapping[str, ServedModel], scheduler: Scheduler
) -> EngineSnapshot:
    """How things stand. Called from the engine's thread."""
    now = time.monotonic()
    return EngineSnapshot(
        tuple(_worker(slot, now) for slot in slots),
        tuple(_model(model, scheduler) for model in models.values()),
        tuple(lora for model in models.values() for lora in _loras(model, slots)),
    )


def _worker(slot: WorkerSlot, now: float) -> WorkerSnapshot:
    model = slot.model
    return WorkerSnapshot(
        slot.name,
        slot.device,
        slot.state.value,
        slot.drained,
        model.name if model is not None else None,
        model.usual_spec.model_name if model is not None else None,
        tuple(sorted(map(model.loras.name, slot.loras))) if model is not None else (),
        (
            *_in_hand(slot.running, "running"),
            *_in_hand(slot.ahead, "next"),
            *_in_hand(slot.saving, "saving"),
        ),
        now - slot.busy_since if slot.running else 0.0,
        slot.restarts,
        slot.lost or (slot.standing.unfit if model is not None else None),
    )


def _in_hand(attempts: Mapping[str, ActiveAttempt], doing: str) -> list[TaskInHand]:
    return [TaskInHand(a.admitted.task_id, a.job, doing) for a in attempts.values()]


def _model(model: ServedModel, scheduler: Scheduler) -> ModelSnapshot:
    return ModelSnapshot(
        model.name,
        scheduler.waiting(model.name),
        model.loads,
        model.switches,
        model.load_seconds,
        model.lora_loads,
        model.lora_switches,
        model.given_up,
    )


def _loras(model: ServedModel, slots: Sequence[WorkerSlot]) -> Iterator[LoraSnapshot]:
    having = [slot for slot in slots if slot.model is model]
    asked = model.loras
    for sha256 in sorted({*asked.pinned, *asked.problems}.union(*(s.loras for s in having))):
        yield LoraSnapshot(
            sha256,
            asked.pinned.get(sha256) or asked.paths.get(sha256),
            model.name,
            tuple(slot.name for slot in having if sha256 in slot.loras),
            sha256 in asked.pinned,
            dict(asked.problems.get(sha256, {})),
        )
