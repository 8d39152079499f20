"""The models of a generator, and the engine whose workers have them, from the first use on."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from loguru import logger

from core.checkpoints.asked_loras import (
    Paths,
    check_takes_loras,
    find_loras,
    hashes_at,
    places_of,
)
from core.checkpoints.lora_files import LoraInspector
from core.devices.model_choice import ModelChoice
from core.engine.backend import WorkerBackend
from core.engine.task_engine import TaskEngine
from core.events import Event
from core.paths import user_path
from core.roles import Roles
from core.settings import Settings
from core.status.tracker import RunTracker
from core.worker_spec import Role

if TYPE_CHECKING:
    from core.engine.snapshot import EngineSnapshot
    from core.remote.served_models import ServedRole
    from core.remote.server import Server


class WarmModels:
    """Safe for several threads.

    Args:
        server: does the work in place of workers of this process, if there is one.
        backend: gives an engine what runs its workers; None where a server does the work.
        tell: told of what happens, in the engine's thread.
        tracker: told of models and of workers that there will be.
        planning: held while it is decided which models are loaded, and how.
    """

    def __init__(
        self,
        roles: Roles,
        server: "Server | None",
        settings: Settings,
        inspector: LoraInspector,
        backend: Callable[[], WorkerBackend] | None,
        tell: Callable[[Event], None],
        tracker: RunTracker,
        planning: RLock,
    ) -> None:
        self.roles = roles
        self.server = server
        self.served: set[Role] = set()  # by the engine
        self.engine: TaskEngine | None = None
        self._settings = settings
        self._inspector = inspector
        self._backend = backend
        self._tell = tell
        self._tracker = tracker
        self._planning = planning
        self._lora_counts = (0, 0)

    def engine_for(self, *roles: Role) -> TaskEngine:
        """The running engine, which serves the models of these roles from now on.

        Raises:
            InputError, DeviceError: a model does not fit into the devices' memory.
        """
        with self._planning:
            if self.engine is None:
                self._tracker.has_all_devices()
                self.engine = self._new_engine()
                self.engine.start()
            for name in roles:
                if name not in self.served:
                    role = self.roles[name]
                    role.ensure()
                    logger.info(role.reason)
                    server = None if self.server is None else self.server.name
                    self._tracker.serves(name, role.model.shown)
                    self._tracker.has_workers(role.devices, server)
                    if self.server is None:
                        self.engine.add_model(role.served())
                    self.served.add(name)
            return self.engine

    def _new_engine(self) -> TaskEngine:
        settings = self._settings
        if self.server is not None:
            from core.remote.remote_engine import RemoteEngine

            rules, timeout = settings.supervision, settings.server_timeout
            devices = self.roles.drawing.devices
            return RemoteEngine(self.server, devices, rules, timeout, self._tell)
        from core.engine.engine import Engine  # who has a daemon needs nothing of it

        assert self._backend is not None
        return Engine(
            [],
            [],
            self._backend(),
            settings.supervision,
            settings.scheduling,
            self._tell,
        )

    def model_of(self, role: Role) -> ModelChoice:
        """The model of a role, chosen now if need be; see `MultiGPUImageGenerator.model_of`."""
        with self._planning:
            return self.roles[role].model

    def takes_masks(self) -> bool:
        """Whether the model that edits does; see `MultiGPUImageGenerator.takes_masks`."""
        with self._planning:
            return self.roles["edit"].takes_masks

    def warm(self, role: Role) -> None:
        """Have workers load a role's model, and keep it; raises as `engine_for` does."""
        with self._planning:
            self.engine_for(role).warm(role)

    def unload(self, role: Role) -> None:
        """Let the workers of a model go, unless tasks wait."""
        with self._planning:
            if self.engine is not None and role in self.served:
                self.engine.unload(role)

    def served_role(self, role: Role) -> "ServedRole":
        """What another process must know of a model to have its tasks done by these workers."""
        from core.remote.served_models import ServedRole

        with self._planning:
            self.engine_for(role)
            return ServedRole.of(self.roles[role])

    def load_loras(self, paths: Paths, pin: bool, role: Role) -> None:
        """Have the workers of a role's model read LoRAs, and wait until they are told.

        Raises:
            InputError, LoraError, DeviceError: see `MultiGPUImageGenerator.load_loras`.
        """
        check_takes_loras(role)
        loras = find_loras(paths, self._lora_folders, self._inspector)
        self.engine_for(role).load_loras(role, loras, pin).result()

    def unload_loras(self, paths: Paths, role: Role) -> None:
        """Have the workers of a role's model forget LoRAs, whose files need not be there."""
        check_takes_loras(role)
        places = places_of(paths, self._lora_folders)
        engine = self.engine if self.server is None else self.engine_for(role)
        if engine is not None and role in self.served:
            hashes = hashes_at(places, self._inspector)
            engine.unload_loras(role, hashes, places).result()

    @property
    def _lora_folders(self) -> list[Path]:
        return [Path.cwd(), user_path(self._settings.lora_dir, "lora_dir")]

    @property
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches of all workers so far, those that are gone included."""
        return self._lora_counts if self.engine is None else self.engine.lora_counts

    def snapshot(self) -> "Future[EngineSnapshot]":
        """How workers and models stand."""
        if self.engine is not None:
            return self.engine.snapshot()
        from core.engine.snapshot import EngineSnapshot

        nothing: Future[EngineSnapshot] = Future()
        nothing.set_result(EngineSnapshot())
        return nothing

    def stop(self, at_once: bool) -> None:
        """Stop the workers that there are; `forget` has to follow."""
        if self.engine is not None:
            self.engine.stop(at_once)

    def forget(self) -> None:
        """Be as before the first use; called when the workers are stopped."""
        self._lora_counts = self.lora_counts
        self.engine = None
        self.served.clear()
