"""Workers in the test's own process: tasks are done by the simulated device as they are sent.

What storage does is the same as in a run with processes, down to the worker's own saver, and a
run takes milliseconds.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.devices.device import Device
from core.engine.backend import Died, Said
from core.messages import (
    Failed,
    Generated,
    Keep,
    Lease,
    Load,
    Loaded,
    Log,
    Ready,
    Stop,
    ToMain,
    ToWorker,
    clip,
    decode,
    encode,
)
from core.settings import SimulatedSettings
from core.worker_spec import WorkerSpec
from tests.report_queue import ReportQueue, WithoutProcesses
from workers.errors import classify
from workers.lora_orders import obey
from workers.process import LEAVING_EXIT
from workers.result_saver import ResultSaver
from workers.simulated_gpu import SimulatedGpu

MODEL = "inline"  # as the pictures say
_NO_TIME: Mapping[str, float] = {
    "load_seconds": 0.0,
    "lora_load_seconds": 0.0,
    "seconds_per_megapixel_step": 0.0,
    "score_seconds": 0.0,
}


class _InlineWorker:
    """One incarnation; its own channel, as its saver sees it."""

    def __init__(self, slot: str, spec: WorkerSpec, reports: ReportQueue) -> None:
        at_once = SimulatedSettings.model_validate({**spec.simulated.model_dump(), **_NO_TIME})
        self.slot, self.dead = slot, False
        self._reports = reports
        self._dying = threading.Lock()  # after its death nothing is said, by its saver neither
        self._family = SimulatedGpu(replace(spec, simulated=at_once), self._log)
        self._saver = ResultSaver(self, spec.most_saving)  # type: ignore[arg-type]
        self.send(Ready(os.getpid(), *self._family.device_identity(), None, 0.0))

    def send(self, message: ToMain) -> None:
        with self._dying:
            if not self.dead:
                self._reports.put(Said(self.slot, decode(encode(message))))

    def _log(self, level: str, text: str) -> None:
        self.send(Log(level, clip(text)))

    def receive(self, message: ToWorker) -> None:
        match message:
            case Load(folder):
                if folder:
                    self._family.model_is_at(folder)
                self.send(Loaded(self._family.load(), 0.0))
            case Keep():
                self.send(obey(self._family, message))
            case Lease():
                self._run(message)
            case Stop():
                self._saver.close()
                self.die("its process ended with exit code 0")

    def _run(self, lease: Lease) -> None:
        try:
            [product] = self._family.run([lease])
        except Exception as error:
            kind, text = classify(error)
            leaving = kind in ("device", "out_of_memory")
            self.send(Failed(lease.lease_id, kind, clip(text), leaving=leaving))
            if leaving:
                self._saver.close()
                self.die(f"its process ended with exit code {LEAVING_EXIT}")
            return
        self._saver.reserve()
        counts, loras = self._family.take_lora_counts(), self._family.resident_loras()
        self.send(Generated(lease.lease_id, 0.0, 0.0, counts.loads, counts.switches, loras))
        used: dict[str, Any] = {**product.used, "model": MODEL}
        self._saver.save(lease, replace(product, used=used), 0.0)

    def kill(self) -> None:
        if not self.dead:
            self.die("its process was ended by SIGKILL", by_sigkill=True)
            self._saver.close()  # what it saves is finished, and nobody is told

    def die(self, how: str, by_sigkill: bool = False) -> None:
        with self._dying:
            self.dead = True
            self._reports.put(Died(self.slot, how, by_sigkill))


class InlineBackend(WithoutProcesses[_InlineWorker]):
    """Does the work of every slot in the engine's thread, as it is sent."""

    ready = True

    def prepare(self, spec: WorkerSpec) -> None: ...

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        assert slot not in self._workers
        self._workers[slot] = _InlineWorker(slot, spec, self._reports)

    def send(self, slot: str, message: ToWorker) -> bool:
        worker = self._workers.get(slot)
        if worker is None or worker.dead:
            return False
        worker.receive(message)
        return True

    def reads_along(self, slot: str) -> bool:
        return not self.is_gone(slot)

    def progress(self, slot: str) -> object:
        return None if self.is_gone(slot) else next(self._ticks)

    def forget(self, slot: str) -> None:
        self.kill(slot)
        self._workers.pop(slot, None)
        self._reports.drop(slot)

    def close(self) -> None:
        for slot in list(self._workers):
            self.forget(slot)
