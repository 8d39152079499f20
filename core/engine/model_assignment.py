"""Carries out `model_switch`: tells it how things stand and gives slots the models it chooses."""

import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from math import inf

from loguru import logger

from core.engine import forecast
from core.engine.model_state import ModelWork, SlotState
from core.engine.model_switch import REPAYS, Stages, assign_models, is_worth_asking
from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.slots import Slots
from core.engine.supervisor import Supervisor
from core.engine.worker_slot import State, WorkerSlot

DOING = {"generate": "generating", "edit": "editing", "score": "scoring"}
SPARING = 100.0  # times its own seconds until the next forecast
BUSY = 1.0  # seconds until a slot is looked at again whose worker comes or goes


class ModelAssignment:
    """Decides which slot serves which model.

    Args:
        slots: all of the engine's.
        stages: a bound on who may have which model when; see `core.engine.model_switch`.
    """

    def __init__(
        self,
        slots: Slots,
        models: Mapping[str, ServedModel],
        scheduler: Scheduler,
        stages: Stages,
    ) -> None:
        self._slots = slots
        self._models = models
        self._scheduler = scheduler
        self._stages = stages
        self._warm: set[str] = set()
        self._coming: dict[int, tuple[str, int]] = {}  # by job: tasks that it will be given
        self._next: dict[str, ServedModel] = {}  # by slot: the model that it is to have
        self._told: list[str] = []  # how slots were shared out when that was told last
        self._seen: object = None  # what the last decision was made of
        self._look_at = inf  # monotonic time at which the same is decided anew
        self._not_before = 0.0  # monotonic time until which forecasts have taken their share
        self._served_at: dict[str, float] = {}  # monotonic time at which a model last had work

    def keep_warm(self, name: str, supervisor: Supervisor) -> None:
        """Start a model's workers before there are tasks for them, where none has another model."""
        self._warm.add(name)
        self._give_empty(self._models[name], supervisor, len(self._slots), resting=True)

    def unload(self, name: str, supervisor: Supervisor) -> None:
        """Let a model's workers go that have nothing to do; they come again with its next task."""
        self._warm.discard(name)
        model = self._models[name]
        for slot in self._slots:
            if self._model_of(slot) is model and not self._tasks_of(model):
                self._next.pop(slot.name, None)
                self._send_away(slot, supervisor)

    def expect(self, job: int, model: str, tasks: int) -> None:
        """A job will be given so many tasks more for a model."""
        self._coming[job] = (model, tasks)

    def ended(self, job: int) -> None:
        """A job is given no tasks any more."""
        self._coming.pop(job, None)

    @property
    def looks_again_at(self) -> float:
        """Monotonic time at which slots that stay idle are to be looked at again."""
        return self._look_at if len(self._models) > 1 else inf

    def assign(self, supervisor: Supervisor, now: float) -> None:
        """Give slots their models; those that are to have another one let their workers go."""
        some_empty = self._slots.any_of("without a model")
        if some_empty:
            for name in self._warm:
                self._give_empty(self._models[name], supervisor, len(self._slots))
        if len(self._models) == 1:
            [model] = self._models.values()
            if some_empty or self._slots.any_of("resting"):
                self._give_empty(model, supervisor, self._tasks_of(model), resting=True)
            return
        for slot in self._slots:
            self._go_on(slot, supervisor)
        self._give_to_dedicated(supervisor)
        staying = [s for s in self._slots if s.name not in self._next]
        idle = [s for s in staying if not s.attempts()]
        owed = self._owed()
        short = self._short(owed)
        if not idle and not short:
            self._look_at = inf
            return
        models = list(self._models.values())
        waiting = {name: self._scheduler.waiting(name) for name in self._models}
        coming = self._coming_by_model()
        seen = (
            [(s.name, s.model, s.state) for s in idle],
            {name for name, count in waiting.items() if count},
            {name for name, count in coming.items() if count},
            short,
            [(m.times.seconds_per_task is None, m.load_seconds is None) for m in models],
        )
        if seen == self._seen:
            if now < self._look_at:
                return
        elif now < self._not_before:
            self._look_at = min(self._look_at, self._not_before)
            return
        self._seen = seen
        for model in models:
            if not waiting[model.name] or any(slot.model is model for slot in self._slots):
                self._served_at[model.name] = now
        works = [self._work(model, waiting, coming, owed, now) for model in models]
        # Where its own tasks wait a slot is never idle, so for what is owed it is asked before.
        asked = [slot.name for slot in staying if short and slot.state is State.SERVING]
        states = [self._state(slot, supervisor, now, slot.name in asked) for slot in self._slots]
        self._look_at = inf
        if is_worth_asking(works, states):
            started = time.perf_counter()
            found = assign_models(works, states, self._stages)
            cost = time.perf_counter() - started
            self._not_before = now + SPARING * cost
            self._look_at = now + max(found.good_for, SPARING * cost)
            to = found.models
            changing = [s for s in self._slots if not s.attempts() or to[s.name] in short]
            if sum([self._follow(s, to[s.name], supervisor) for s in changing]):
                self._tell_split()
        self._make_way(supervisor, owed, now)

    # -- what the policy is told -----------------------------------------------

    def _work(
        self,
        model: ServedModel,
        waiting: Mapping[str, int],
        coming: Mapping[str, int],
        owed: Mapping[str, int],
        now: float,
    ) -> ModelWork:
        given_up = model.given_up is not None
        return ModelWork(
            model.name,
            0 if given_up else waiting[model.name],
            model.times.seconds_per_task,
            model.load_seconds,
            model.after,
            0 if given_up else coming.get(model.name, 0),
            owed.get(model.name, 0),
            now - self._served_at.setdefault(model.name, now),
        )

    def _coming_by_model(self) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for name, tasks in self._coming.values():
            found[name] += tasks
        return found

    def _owed(self) -> dict[str, int]:
        """Slots that each model is owed, where owners wait for different ones.

        Every owner is counted with one model: of those that its tasks wait for, the first that a
        slot has. Owners of the highest priority have equal parts of the slots, others none. Of
        one owner's models none is owed anything: when all of its work ends is what counts.
        """
        having = {model.name for s in self._slots if (model := self._model_of(s))}
        wanted: dict[Hashable, tuple[int, bool, str]] = {}
        for name in self._models:
            for owner, priority in self._scheduler.owners(name).items():
                known, found = wanted.get(owner), (priority, name in having, name)
                if known is None or found[:2] > known[:2]:
                    wanted[owner] = found
        if len({name for _, _, name in wanted.values()}) < 2:
            return {}
        top = max(priority for priority, _, _ in wanted.values())
        owners = Counter(name for priority, _, name in wanted.values() if priority == top)
        return {
            name: max(1, len(self._slots) * count // owners.total())
            for name, count in owners.items()
        }

    def _short(self, owed: Mapping[str, int]) -> set[str]:
        """Models with fewer slots than they are owed and have tasks for."""
        having = Counter(model.name for s in self._slots if (model := self._model_of(s)))
        return {
            name
            for name, count in owed.items()
            if having[name] < min(count, self._scheduler.waiting(name))
        }

    def _model_of(self, slot: WorkerSlot) -> ServedModel | None:
        """The model that a slot has, or is about to have."""
        return self._next.get(slot.name) or slot.model

    def _kept_waiting(self) -> list[WorkerSlot]:
        """Slots that are to have a worker and have none yet, though tasks wait for it."""
        return [
            s
            for s in self._slots
            if s.model and s.wanted and not s.alive and self._scheduler.waiting(s.model.name)
        ]

    def _state(
        self, slot: WorkerSlot, supervisor: Supervisor, now: float, as_free: bool = False
    ) -> SlotState:
        """How a slot stands to the policy.

        Args:
            as_free: it may be asked to change now, after what it has in hand.
        """
        model = self._model_of(slot)
        unfit = frozenset(
            m.name for m in self._models.values() if slot.drained or not slot.can_serve(m)
        )
        resting = not slot.alive and not slot.wanted and slot.name not in self._next
        if model is None or resting or model.name in unfit:
            taken = slot.alive or any(supervisor.excludes(slot, s) for s in self._kept_waiting())
            return SlotState(slot.name, None, BUSY if taken else 0.0, unfit=unfit)
        if slot.name in self._next or slot.state is not State.SERVING:
            load = model.load_seconds or 0.0
            loading_for = now - slot.started_at if slot.alive else 0.0
            left = max(load - loading_for, BUSY)
            return SlotState(slot.name, model.name, left, busy_for=loading_for, unfit=unfit)
        held = len(slot.running) + len(slot.ahead)
        rate = model.times.seconds_per_work(slot.name) or 0.0
        return SlotState(
            slot.name,
            model.name,
            max(forecast.busy_for(slot, rate, now), 0.001) if held and not as_free else 0.0,
            held,
            now - slot.busy_since if held else 0.0,
            now - slot.serving_since,
            unfit,
        )

    # -- what comes of it ------------------------------------------------------

    def _give_to_dedicated(self, supervisor: Supervisor) -> None:
        """Start slots that serve one model alone, on a device of their own, when it has tasks.

        They take nothing from any other model, so that no policy has to weigh it, and no stage has
        to wait: such is a judge that asks a server elsewhere.
        """
        started = False
        for slot in self._slots:
            fitting = [model for model in self._models.values() if slot.name in model.slots]
            empty = not slot.alive and not slot.drained and (slot.model is None or slot.rests)
            if len(fitting) != 1 or not empty or not slot.can_serve(fitting[0]):
                continue
            alone = not any(supervisor.excludes(slot, s) for s in self._slots if s is not slot)
            if alone and slot.device.kind == "cpu" and self._scheduler.waiting(fitting[0].name):
                supervisor.give_model(slot, fitting[0])
                started = True
        if started:
            self._tell_split()

    def _give_empty(
        self, model: ServedModel, supervisor: Supervisor, most: int, resting: bool = False
    ) -> None:
        """Give a model to slots that have none, or to those whose workers were let go, too."""
        # One that is lost, or given up with it, does not serve it any more.
        having = sum(s.model is model and s.wanted and s.can_serve(model) for s in self._slots)
        for slot in self._slots:
            if having >= most:
                return
            empty = slot.model is None or (resting and slot.rests)
            if empty and not slot.alive and not slot.drained and slot.can_serve(model):
                supervisor.give_model(slot, model)
                having += 1

    def _tasks_of(self, model: ServedModel) -> int:
        held = sum(len(slot.attempts()) for slot in self._slots if slot.model is model)
        return self._scheduler.waiting(model.name) + held

    def _follow(self, slot: WorkerSlot, name: str | None, supervisor: Supervisor) -> bool:
        """Begin to give a slot a model; False if it has it."""
        model = self._models.get(name) if name is not None else None
        if model is None or (model is slot.model and slot.wanted):
            return False
        self._next[slot.name] = model
        self._go_on(slot, supervisor)
        return True

    def _tell_split(self) -> None:
        models = map(self._model_of, self._slots)
        counts = Counter(model.name for model in models if model is not None)
        parts = [f"{counts[name]} {DOING.get(name, name)}" for name in self._models]
        if parts != self._told:
            self._told = parts
            logger.info(f"Split: {', '.join(parts)}.")

    def _go_on(self, slot: WorkerSlot, supervisor: Supervisor) -> None:
        """The change of a slot's model goes as far as it can."""
        model = self._next.get(slot.name)
        if model is None:
            if not slot.wanted:
                supervisor.let_go(slot)
            return
        if slot.alive:
            slot.wanted = False
            supervisor.let_go(slot)
            return
        del self._next[slot.name]
        if slot.can_serve(model) and not slot.drained:
            supervisor.give_model(slot, model)

    def _make_way(self, supervisor: Supervisor, owed: Mapping[str, int], now: float) -> None:
        """Workers leave devices that slots of another size wait for.

        Those without work do at once; others when they have repaid their loading, if the model
        that waits is owed a slot.
        """
        for slot in self._slots:
            if slot.alive or slot.model is None or not slot.wanted:
                continue
            for other in self._slots:
                if not other.alive or not other.wanted or not supervisor.excludes(slot, other):
                    continue
                assert other.model is not None
                if not other.attempts() and not self._scheduler.waiting(other.model.name):
                    self._send_away(other, supervisor)
                elif slot.model.name in owed and self._scheduler.waiting(slot.model.name):
                    loads = sum(m.load_seconds or 0.0 for m in (slot.model, other.model))
                    repaid_at = other.serving_since + REPAYS * loads
                    if other.state is State.SERVING and now >= repaid_at:
                        self._send_away(other, supervisor)
                    else:
                        self._look_at = min(self._look_at, max(repaid_at, now + BUSY))

    @staticmethod
    def _send_away(slot: WorkerSlot, supervisor: Supervisor) -> None:
        """Let a slot's worker leave when it has nothing to do, perhaps at once."""
        slot.wanted = False
        supervisor.let_go(slot)
