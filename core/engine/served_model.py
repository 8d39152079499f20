"""One model that an engine serves: what all of its workers have in common."""

from collections import deque
from collections.abc import Callable, Collection, Sequence

from loguru import logger

from core.devices.device import Device
from core.devices.load_turns import LoadTurns
from core.devices.memory_choice import MemoryChoice
from core.devices.sharing import share_out
from core.engine.barrier import Barrier
from core.engine.fetch import Fetch
from core.engine.known_loras import KnownLoras
from core.engine.task_times import TaskTimes
from core.errors import DeviceError
from core.intake.admission import Admitted
from core.memory_modes import Mode
from core.paths import user_path
from core.settings import SupervisionSettings
from core.worker_spec import WorkerSpec

WAITS_KEPT = 1000  # of devices, before their newest tasks


class ServedModel:
    """A model, its state of supervision, and what was learned of it.

    Args:
        name: what tasks ask for: their role.
        devices: where it can be served, a worker each.
        spec_for: what a worker on a device is born knowing, as things stand.
        concurrent_loads: the setting of that name.
        memory: how its memory mode was decided, for workers that run out of memory while they
            load; without it their slots are given up.
        in_step: workers wait for each other after every task (`enable_batch_sync`).
        after: name of the model whose results are this one's input, if there is one.
        joins: it is also served on devices of machines that join.
    """

    def __init__(
        self,
        name: str,
        devices: Collection[Device],
        spec_for: Callable[[Device], WorkerSpec],
        rules: SupervisionSettings,
        concurrent_loads: int | str,
        memory: MemoryChoice | None = None,
        in_step: bool = False,
        after: str | None = None,
        joins: bool = True,
    ) -> None:
        self.name = name
        self.devices = list(devices)
        self.slots = frozenset(device.label for device in devices)
        self.spec_for = spec_for
        self.memory = memory
        self.fetch: Fetch | None = None  # brings the model's files here, while it does
        self.fetch_has_begun = False
        self.after = after
        self._joins = joins
        self.folder = ""  # where a hub's model lies; empty for other models
        self.times = TaskTimes(rules)
        self.barrier = Barrier() if in_step else None
        self.has_served = False  # a worker loaded it
        self.given_up: str | None = None  # why nobody serves it any more
        self.load_seconds: float | None = None  # from a start to the first task, last measured
        self.loads = 0  # by workers, and
        self.switches = 0  # those of them in place of another model
        self.lora_loads = 0
        self.lora_switches = 0
        self.loras = KnownLoras()
        self.remade: Callable[[Admitted], Admitted] = lambda admitted: admitted
        self.waits: deque[float] = deque(maxlen=WAITS_KEPT)
        self._concurrent_loads = concurrent_loads
        self._turns: LoadTurns | None = None

    def join(self, devices: Sequence[Device]) -> list[Device]:
        """Take over more devices, shared out as the first ones are; returns one per worker.

        Devices that cannot be shared out so, as where a machine has fewer than a worker needs,
        stay idle for this model, and that is said.
        """
        if not self._joins:
            return []
        first = self.devices[0]
        try:
            shared = share_out(devices, first.count, first.sharers, asked_for=False)
        except DeviceError as error:
            names = ", ".join(device.label for device in devices)
            logger.warning(f"{names}: of no use for tasks to {self.name}: {error}")
            return []
        joined = [device for device in shared if device.kind == first.kind]
        known = {device.label for device in self.devices}
        self.devices += [device for device in joined if device.label not in known]
        self.slots |= {device.label for device in joined}
        if joined:
            self.given_up = None
        return joined

    @property
    def usual_spec(self) -> WorkerSpec:
        """The spec of a worker on the model's first device."""
        return self.spec_for(self.devices[0])

    @property
    def turns(self) -> LoadTurns:
        """Turns between the workers that load the model."""
        if self._turns is None:
            self._turns = LoadTurns(self._concurrent_loads, self.usual_spec)
        return self._turns

    def change_memory(self, mode: Mode) -> None:
        """A worker loads in another memory mode from now on, and the others may follow."""
        self.turns.change_to(mode)

    def remake_for(self, mode: Mode) -> None:
        """Remake tasks from now on for another memory mode, in which all workers load."""
        assert self.memory is not None
        self.remade = self.memory.change_to(mode)

    def arrived(self, folder: str) -> None:
        """The hub's model is here."""
        self.folder, self.fetch = folder, None
        spec = self.usual_spec.fetched_to(str(user_path(folder, "model")))
        self._turns = LoadTurns(self._concurrent_loads, spec)

    def stop_fetching(self) -> None:
        if self.fetch is not None:
            self.fetch.stop()
            self.fetch = None

    @property
    def awaits_files(self) -> bool:
        """Whether the model's files are still on their way, so that no worker can load it."""
        return self.fetch is not None
