"""The workers of an engine as processes of this machine."""

import signal
import time

from core.devices.device import Device
from core.devices.model_choice import is_hub_model
from core.engine.backend import Died, HungUp, Report, Said
from core.events import Listener
from core.messages import ToWorker
from core.processes.entry_points import run_fetch, run_worker
from core.processes.model_fetch import ModelFetch
from core.processes.sources import Sources
from core.processes.starters import Starters
from core.processes.worker_link import WorkerLink, WorkerMain
from core.settings import SupervisionSettings
from core.worker_spec import WorkerSpec


class LocalBackend:
    """Starts processes, and watches all of them with one selector.

    Args:
        start_method: `forkserver`, `spawn` or `auto`, as in the settings.
        rules: how long what may take.
        target: what a worker's process runs.
    """

    def __init__(
        self, start_method: str, rules: SupervisionSettings, target: WorkerMain = run_worker
    ) -> None:
        self._rules = rules
        self._target = target
        self._sources: Sources[str] = Sources()
        self._links: dict[str, WorkerLink] = {}
        self._starters = Starters(start_method, rules.boot_timeout, self.wake)

    @property
    def ready(self) -> bool:
        return self._starters.ready

    def prepare(self, spec: WorkerSpec) -> None:
        self._starters.starter(spec)

    def fetch(self, spec: WorkerSpec, listener: Listener) -> ModelFetch | None:
        if not is_hub_model(spec.source):
            return None
        return ModelFetch(run_fetch, spec, self._rules, listener)

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        assert slot not in self._links
        starter = self._starters.starter(spec)
        if not starter.ready:  # to wait for it here would hold up every other worker
            raise OSError("the fork server is still being started")
        link = WorkerLink(slot, device, spec, starter, self._target)
        self._links[slot] = link
        self._sources.add(slot, link.messages, link.sentinel)

    def send(self, slot: str, message: ToWorker) -> bool:
        link = self._links.get(slot)
        return link is not None and link.send(message)

    def reads_along(self, slot: str) -> bool:
        link = self._links.get(slot)
        return link is not None and link.reads_along

    def is_gone(self, slot: str) -> bool:
        link = self._links.get(slot)
        return link is None or link.exit_code is not None

    def has_word(self, slot: str) -> bool:
        link = self._links.get(slot)
        return link is not None and link.has_word

    def progress(self, slot: str) -> object:
        link = self._links.get(slot)
        return None if link is None else link.progress

    def kill(self, slot: str) -> None:
        if (link := self._links.get(slot)) is not None:
            link.kill()

    def forget(self, slot: str) -> None:
        if (link := self._links.pop(slot, None)) is not None:
            self._sources.drop(slot)
            link.close()

    def poll(self, timeout: float) -> list[Report]:
        reports: list[Report] = []
        for slot, dies in self._sources.wait(timeout).items():
            link = self._links[slot]
            # Before its words are read: what a process says before its death is there then.
            died = dies and link.exit_code is not None
            words = link.last_words() if died else link.receive()
            reports += [Said(slot, message) for message in words]
            if died:
                reports.append(self._death(link, slot))
                self.forget(slot)
            elif link.hung_up:
                self._sources.drop_messages(slot)
                reports.append(HungUp(slot))
        return reports

    def _death(self, link: WorkerLink, slot: str) -> Died:
        by_sigkill = link.exit_code == -signal.SIGKILL
        return Died(slot, link.describe_death(), by_sigkill, blameless=link.orphaned)

    def wake(self) -> None:
        self._sources.wake()

    def close(self) -> None:
        for slot in self._links:
            self.kill(slot)
        end = time.monotonic() + self._rules.kill_timeout
        while self._links and (left := end - time.monotonic()) > 0:
            self.poll(left)
        for slot in list(self._links):
            self.forget(slot)
        self._sources.close()
