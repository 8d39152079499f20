"""Encodes and writes results behind the next task, and previews behind the next step."""

import hashlib
import io
import os
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from core.fault_points import fault_point
from core.messages import Done, Failed, FailureKind, Lease, Preview, clip
from core.store.outputs import FATAL_ERRNOS, discard, preview_of
from workers.channel import Channel, work_on
from workers.models.base import Product
from workers.previews import Sketch

PREVIEW_QUALITY = 85  # of a JPEG file


@dataclass(frozen=True)
class _Result:
    """A result that is to be saved; `seconds` of device time went into it."""

    lease: Lease
    product: Product
    seconds: float


class ResultSaver:
    """A thread that turns results into synced files, at most `max_pending` behind."""

    def __init__(self, channel: Channel, max_pending: int) -> None:
        self._channel = channel
        self._places = threading.Semaphore(max_pending)
        self._queue: queue.SimpleQueue[_Result | Sketch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="result-saver", daemon=True)
        self._thread.start()

    def reserve(self) -> None:
        """Wait for a place; every `save` needs one."""
        self._places.acquire()

    def save(self, lease: Lease, product: Product, seconds: float) -> None:
        """Queue a result; `Done` or `Failed` follows. `seconds`: of device time so far."""
        self._queue.put(_Result(lease, product, seconds))

    def show(self, sketch: Sketch) -> None:
        """Queue a preview; `Preview` follows, unless it cannot be had."""
        self._queue.put(sketch)

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work_on([item.lease.task_name])
            if isinstance(item, Sketch):
                self._show(item)
                continue
            try:
                self._save(item.lease, item.product, item.seconds)
            finally:
                self._places.release()

    def _show(self, sketch: Sketch) -> None:
        """Write a preview to a file, which need not outlive this run."""
        lease, number = sketch.lease, sketch.number
        file = Path(preview_of(lease.at(lease.partial_path), number))
        try:
            data = io.BytesIO()
            sketch.picture().save(data, "JPEG", quality=PREVIEW_QUALITY)
            file.write_bytes(data.getvalue())
        except Exception as error:  # nobody's fault, and nobody waits for it
            discard(file)
            self._channel.log("DEBUG", f"no preview after step {sketch.step}: {error!r}")
            return
        self._channel.send(Preview(lease.lease_id, number, sketch.step, sketch.total))

    def _save(self, lease: Lease, product: Product, seconds: float) -> None:
        started = time.monotonic()
        try:
            data = product.encode(lease)
            _write_synced(Path(lease.at(lease.partial_path)), data)
        except OSError as error:
            text = f"{lease.task.output_path}: {error.strerror or error}"
            kind: FailureKind = "storage" if error.errno in FATAL_ERRNOS else "error"
            self._channel.send(Failed(lease.lease_id, kind, clip(text), seconds))
            return
        except Exception as error:  # what cannot be encoded is this task's failure alone
            text = f"The result could not be encoded: {error!r}"
            self._channel.send(Failed(lease.lease_id, "error", clip(text), seconds))
            return
        elapsed = seconds + time.monotonic() - started
        digest = hashlib.sha256(data).hexdigest()
        self._channel.send(Done(lease.lease_id, len(data), digest, elapsed, product.used))


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        fault_point("worker.mid-write", lambda: stream.truncate(len(data) // 2))
        fault_point("worker.before-fsync")
        os.fsync(stream.fileno())
        fault_point("worker.after-fsync")
