"""How an engine stands at one moment: workers and models, for whoever watches or runs it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.devices.device import Device
from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.task_state import ActiveAttempt
from core.engine.worker_slot import WorkerSlot

DRAINED = "drained"


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
class EngineSnapshot:
    """Workers and models of an engine at one moment."""

    workers: tuple[WorkerSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()


def snapshot(
    slots: Sequence[WorkerSlot], models: Mapping[str, ServedModel], scheduler: Scheduler
) -> EngineSnapshot:
    """How things stand. Called from the engine's thread."""
    now = time.monotonic()
    return EngineSnapshot(
        tuple(_worker(slot, now) for slot in slots),
        tuple(_model(model, scheduler) for model in models.values()),
    )


def _worker(slot: WorkerSlot, now: float) -> WorkerSnapshot:
    model = slot.model
    names = model.lora_names if model is not None else {}
    return WorkerSnapshot(
        slot.name,
        slot.device,
        DRAINED if slot.drained and not slot.attempts() else slot.state.value,
        slot.drained,
        model.name if model is not None else None,
        model.usual_spec.model_name if model is not None else None,
        tuple(sorted(names.get(sha256, sha256[:12]) for sha256 in slot.loras)),
        (
            *_in_hand(slot.running, "running"),
            *_in_hand(slot.ahead, "next"),
            *_in_hand(slot.saving, "saving"),
        ),
        now - slot.busy_since if slot.running else 0.0,
        slot.restarts,
        slot.standing.unfit if model is not None else None,
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


def remember_names(model: ServedModel, active: ActiveAttempt) -> None:
    """Note what the LoRAs of an attempt are called; workers know them by their content."""
    for lora in active.lease.loras:
        model.lora_names[lora.sha256] = Path(lora.path).stem
