"""One place for a worker: a device, over all workers that it sees. No process in here."""

import time
from dataclasses import dataclass, field, replace
from enum import Enum

from core.devices.device import Device
from core.engine.restart_policy import Deaths
from core.engine.served_model import ServedModel
from core.engine.task_state import ActiveAttempt
from core.memory_modes import Mode
from core.messages import Keep
from core.worker_spec import WorkerSpec

Attempts = dict[str, ActiveAttempt]


class State(Enum):
    """The life of a worker; the value is shown to the user."""

    DOWN = "waiting to start"
    BOOTING = "starting"
    BOOTED = "waiting to load"
    LOADING = "loading the model"
    SERVING = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DRAINED = "drained"
    RETIRED = "given up"


@dataclass
class Standing:
    """How a slot has fared with one model.

    Attributes:
        memory: the memory mode that it loads the model in; None for that of all workers.
        has_changed_memory: it ran out of memory at load: a smaller mode is tried once.
        unfit: why it serves the model no more; None while it may.
    """

    deaths: Deaths = field(default_factory=Deaths)
    memory: Mode | None = None
    has_changed_memory: bool = False
    unfit: str | None = None


class WorkerSlot:
    """The engine's view of one slot: its model, its worker's state, what it holds, its deadline.

    Every attribute that is set marks the slot as changed; what is changed inside of one has to be
    followed by `touch`.
    """

    number = 0  # its place among all slots
    _changed: "set[int] | None" = None  # numbers of those that changed, of whoever files them

    def __init__(self, device: Device) -> None:
        self.use(device)
        self.name = device.label
        self.model: ServedModel | None = None  # of the present worker, or of the next one
        self.spec: WorkerSpec | None = None  # of the present worker
        self.state = State.DOWN
        self.alive = False  # a worker was started and is not known to be gone
        self.wanted = True  # False: its worker is to leave when it has nothing to do
        self.drained = False  # it is to have no worker until it is undrained
        self.lost: str | None = None  # why its machine is not there any more
        self.comes_back = False  # it was undrained while its worker was leaving
        self.restarts = 0  # deaths that nobody had ordered
        self.deadline: float | None = None  # monotonic time by which something must happen
        self.start_at = 0.0  # monotonic time of the next start while DOWN
        self.started_at = 0.0  # monotonic time of its worker's start
        self.serving_since = 0.0  # monotonic time at which its worker had loaded its model
        self.load_seen: object = None  # what the backend last said of a load's progress
        self.load_seen_at = 0.0
        self.loras: frozenset[str] = frozenset()
        self.orders: dict[str, Keep] = {}  # by LoRA: what its worker, or the next, is to be told
        self.keeping: Keep | None = None  # what it was told of a LoRA, and does now
        self.fresh = True  # its worker has not finished a task yet
        self.leaves_because: str | None = None  # its worker said that it will end itself
        self.kill_reason: str | None = None  # why the engine ordered its worker's death
        self.busy_since = 0.0  # monotonic time at which it began what it runs
        self.looks_again_at = 0.0  # monotonic time at which it may take over what others run
        self.saving_since = 0.0  # monotonic time at which the newest result was made
        self.running: Attempts = {}
        self.ahead: Attempts = {}  # begun when `running` is done
        self.saving: Attempts = {}  # made, and still being written by the worker
        self.publishing: set[str] = set()  # leases whose end is being recorded
        self.standings: dict[str, Standing] = {}

    def use(self, device: Device) -> None:
        """Have a device, or know the one that it has better."""
        self.device = device
        masks = device.mask.split(",") if device.kind == "cuda" else ()
        self.gpus = frozenset((device.node, mask) for mask in masks)  # that it sees

    def is_filed_by(self, number: int, changed: "set[int]") -> None:
        """Note from now on in `changed` that something of the slot is another than it was."""
        self._changed, self.number = changed, number

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if self._changed is not None:
            self._changed.add(self.number)

    def touch(self) -> None:
        """Mark the slot as changed."""
        if self._changed is not None:
            self._changed.add(self.number)

    # -- its model -------------------------------------------------------------

    @property
    def standing(self) -> Standing:
        """How the slot has fared with its present model."""
        assert self.model is not None
        return self.standing_with(self.model)

    def standing_with(self, model: ServedModel) -> Standing:
        return self.standings.setdefault(model.name, Standing())

    def can_serve(self, model: ServedModel) -> bool:
        """Whether the slot may be given this model."""
        fit = self.lost is None and self.standing_with(model).unfit is None
        return fit and self.name in model.slots

    def comes_again(self, device: Device) -> None:
        """Begin anew: the machine is back, with whatever was wrong with it mended."""
        self.use(device)
        self.lost = self.model = None
        self.state, self.wanted = State.DOWN, True
        self.drained = self.comes_back = False
        self.standings.clear()
        self.orders.clear()

    def next_spec(self) -> WorkerSpec:
        """What its next worker is born knowing."""
        assert self.model is not None
        spec = self.model.spec_for(self.device)
        memory = self.standing.memory
        return spec if memory is None else replace(spec, memory=memory)

    @property
    def memory(self) -> Mode:
        """The memory mode in which its next worker loads the model."""
        return self.next_spec().memory

    def load_smaller(self, mode: Mode) -> None:
        """Let the next worker load the model in a mode that takes less memory."""
        self.standing.memory = mode
        self.standing.has_changed_memory = True

    # -- its worker ------------------------------------------------------------

    def started(self, spec: WorkerSpec) -> None:
        """A worker comes to life here."""
        self.spec = spec
        self.alive = True
        self.started_at = time.monotonic()
        self.kill_reason = self.leaves_because = None
        self.fresh = True

    def buried(self) -> None:
        """Forget the worker, which is gone, and everything that belonged to it.

        `orders` stay: what is left of them is for the next one.
        """
        self.alive = False
        self.deadline = None
        self.running, self.ahead, self.saving = {}, {}, {}
        self.loras, self.keeping = frozenset(), None

    def order(self, order: Keep) -> None:
        """Have its worker do something about a LoRA; what it was to do before counts no more."""
        self.orders.pop(order.sha256, None)
        self.orders[order.sha256] = order
        self.touch()

    @property
    def rests(self) -> bool:
        """Whether its worker was let go, and it may have another one."""
        return not (self.alive or self.wanted or self.drained)

    @property
    def on_its_way_out(self) -> bool:
        """Whether the worker was killed or is to leave; its deadline is for that alone."""
        return self.kill_reason is not None or self.state is State.STOPPING

    @property
    def group_size(self) -> int:
        """Attempts that its worker may be given at once."""
        return self.spec.group_size if self.spec else 1

    @property
    def is_open(self) -> bool:
        """Whether the slot's worker may be given another attempt."""
        if self.state is not State.SERVING or self.on_its_way_out or not self.wanted:
            return False
        if self.keeping is not None:
            return False
        assert self.spec is not None
        # What it saves, and what is not recorded yet, would be lost with this program.
        unpublished = len(self.saving) + len(self.running) + len(self.publishing)
        if unpublished > self.spec.most_saving:
            return False
        return not any(active.alone for active in self.attempts())

    def attempts(self) -> list[ActiveAttempt]:
        """All that it holds: on the device, behind that, and being saved."""
        return [*self.running.values(), *self.ahead.values(), *self.saving.values()]

    @property
    def holds_any(self) -> bool:
        """Whether it holds an attempt, be it on the device, behind that, or being saved."""
        return bool(self.running or self.ahead or self.saving)

    def held(self, lease_id: str) -> ActiveAttempt | None:
        """The attempt of a lease, if it has it."""
        for attempts in (self.running, self.ahead, self.saving):
            if lease_id in attempts:
                return attempts[lease_id]
        return None

    def drop(self, lease_id: str) -> None:
        """Remove an attempt from the slot."""
        for attempts in (self.running, self.ahead, self.saving):
            attempts.pop(lease_id, None)
        self.touch()

    def go_on(self) -> bool:
        """Begin what was given for afterwards, if its device has nothing else; True if it does."""
        if self.running or not self.ahead:
            return False
        self.running, self.ahead = self.ahead, {}
        return True

    @property
    def loras_soon(self) -> frozenset[str]:
        """LoRAs that the worker holds, and those that it loads for what it was given."""
        if self.keeping is not None and self.keeping.way != "unload":
            return self.loras | {self.keeping.sha256}
        if not self.running and not self.ahead:
            return self.loras
        given = [*self.running.values(), *self.ahead.values()]
        coming = frozenset[str]().union(*(active.admitted.loads for active in given))
        soon = self.loras | coming
        return soon if self.spec and len(soon) <= self.spec.max_resident_loras else coming

    @property
    def work(self) -> float:
        """Expected work of what it runs."""
        return sum(active.admitted.work for active in self.running.values())

    @property
    def work_ahead(self) -> float:
        """Expected work of the attempts that it begins after those that it runs."""
        return sum(active.admitted.work for active in self.ahead.values())

    @property
    def may_compile(self) -> bool:
        """Whether the next task may have to wait for a compiler, before the worker can say so."""
        return self.fresh and self.spec is not None and self.spec.may_compile

    # -- its time --------------------------------------------------------------

    def set_deadline(self, seconds: float | None) -> None:
        self.deadline = None if seconds is None else time.monotonic() + seconds

    def forgive(self, seconds: float) -> None:
        """Move all deadlines by a time in which main was held up."""
        self.busy_since += seconds
        self.saving_since += seconds
        self.load_seen_at += seconds
        if self.deadline is not None:
            self.deadline += seconds
