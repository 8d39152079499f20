"""The engine of a benchmark: workers of this machine, or a daemon's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from apps.edit_benchmark.settings import BenchmarkSettings
from core.devices.device import Device
from core.engine.backend import WorkerBackend
from core.engine.model_switch import Stages
from core.engine.task_engine import TaskEngine
from core.events import Listener
from core.remote.server import Server
from core.role_model import RoleModel


@dataclass(frozen=True)
class EngineChoice:
    """What an engine for the roles of a benchmark is made of.

    Args:
        roles: what this run may need: the editor, the judge, or both.
        server: a daemon that has their models; None for workers here.
        backend: gives an engine what runs its workers; None where a server does the work.
    """

    settings: BenchmarkSettings
    roles: Sequence[RoleModel]
    server: Server | None
    backend: Callable[[], WorkerBackend] | None

    @property
    def stages(self) -> Stages:
        """The setting, or what is left of it on these devices."""
        if self.server is not None:
            return "auto"  # the daemon's workers are others', too
        first, *others = (role.devices for role in self.roles)
        stages = self.settings.stages
        if not others:
            return "sequential"
        if stages == "overlapped" and len(first) == 1:
            logger.info("stages: one worker cannot be shared out; editing comes first.")
        if len(first) == 1 or any(devices != first for devices in others):
            return "sequential"
        return stages

    def make(self, needed: Sequence[RoleModel], stages: Stages, hear: Listener) -> TaskEngine:
        """An engine for all roles; models of the needed ones are fetched at once."""
        if self.server is not None:
            return self._remote(self.server, hear)
        settings = self.settings
        from core.engine.engine import Engine  # who has a daemon needs nothing of it

        assert self.backend is not None
        two = len(self.roles) > 1
        served = [
            role.served(
                settings.enable_batch_sync, after="edit" if two and role.role == "score" else None
            )
            for role in self.roles
        ]
        engine = Engine(
            self._devices_of(needed),
            served,
            self.backend(),
            settings.supervision,
            settings.scheduling,
            hear,
            stages=stages,
            release_patience=settings.vram_release_timeout,
        )
        engine.fetch([role.role for role in needed])
        return engine

    def _remote(self, server: Server, hear: Listener) -> TaskEngine:
        """A daemon's workers, which change their models as its tasks ask for it."""
        from core.remote.remote_engine import RemoteEngine

        rules, timeout = self.settings.supervision, self.settings.server_timeout
        return RemoteEngine(server, self._devices_of(self.roles), rules, timeout, hear)

    def _devices_of(self, roles: Sequence[RoleModel]) -> list[Device]:
        return list({d.label: d for role in roles for d in role.devices}.values())
