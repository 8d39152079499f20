"""A pool without processes: leases are drawn and saved in this one, by the worker's own saver."""

import queue
from collections.abc import Sequence
from typing import Any

from core.engine.batch import Batch
from PIL import Image

from core.engine.pending import Worker
from core.messages import Done, Lease
from core.tasks import Status
from workers.models.base import Picture, model_settings
from workers.result_saver import ResultSaver

SIZE = (64, 64)


class InlinePool:
    """Stands in for `WorkerPool`: what storage does is the same, and a run takes milliseconds."""

    lora_loads = lora_switches = 0
    waits: Sequence[float] = ()

    def __init__(self, workers: Sequence[Any], *_: Any, **__: Any) -> None:
        self._spec = workers[0][1]
        self._sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._saver = ResultSaver(self, 1)  # type: ignore[arg-type]

    def send(self, message: Any) -> None:
        self._sent.put(message)

    def start(self) -> None: ...

    def stop_leasing(self) -> None: ...

    def abandon(self, status: Status, reason: str) -> None: ...

    def submit(self, batch: Batch) -> None:
        worker = Worker("inline", frozenset(), frozenset(), frozenset(), ())
        while (active := batch.next_lease(worker)) is not None:
            message = self._draw(active.lease)
            if isinstance(message, Done):
                batch.done(message)
            else:
                batch.failed(message)

    def _draw(self, lease: Lease) -> Any:
        colour = tuple(bytes.fromhex(lease.fingerprint[:6]))
        self._saver.reserve()
        used: dict[str, Any] = {"model": "inline", "width": SIZE[0], "height": SIZE[1]}
        used |= model_settings(self._spec)
        self._saver.save(lease, Picture(used, Image.new("RGB", SIZE, colour)), 0.0)
        return self._sent.get(timeout=60)

    def stop(self, at_once: bool = False) -> None:
        self._saver.close()
