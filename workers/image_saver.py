"""Encodes and writes pictures behind the next task."""

import hashlib
import os
import queue
import threading
import time
from io import BytesIO
from pathlib import Path

from PIL.Image import Image

from core.messages import Done, Failed, FailureKind, Lease, clip
from core.outputs import FATAL_ERRNOS
from core.provenance import png_info
from core.worker_spec import WorkerSpec
from workers.channel import Channel
from workers.models.base import Picture


class ImageSaver:
    """A thread that turns pictures into synced PNG files, at most `max_pending_saves` behind."""

    def __init__(self, channel: Channel, spec: WorkerSpec) -> None:
        self._channel = channel
        self._compress_level = spec.png_compress_level
        self._places = threading.Semaphore(spec.max_pending_saves)
        self._queue: queue.SimpleQueue[tuple[Lease, Picture, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="image-saver", daemon=True)
        self._thread.start()

    def reserve(self) -> None:
        """Wait for a place; every `save` needs one."""
        self._places.acquire()

    def save(self, lease: Lease, picture: Picture, seconds: float) -> None:
        """Queue a picture; `Done` or `Failed` follows. `seconds`: of device time so far."""
        self._queue.put((lease, picture, seconds))

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            lease, picture, seconds = item
            try:
                self._save(lease, picture, seconds)
            finally:
                self._places.release()

    def _save(self, lease: Lease, picture: Picture, seconds: float) -> None:
        started = time.monotonic()
        try:
            data = self._encode(lease, picture)
            _write_synced(Path(lease.partial_path), data)
        except OSError as error:
            text = f"{lease.task.output_path}: {error.strerror or error}"
            kind: FailureKind = "storage" if error.errno in FATAL_ERRNOS else "error"
            self._channel.send(Failed(lease.lease_id, kind, clip(text), seconds))
            return
        except Exception as error:  # an image that cannot be encoded is this task's failure alone
            text = f"The picture could not be encoded: {error!r}"
            self._channel.send(Failed(lease.lease_id, "error", clip(text), seconds))
            return
        elapsed = seconds + time.monotonic() - started
        digest = hashlib.sha256(data).hexdigest()
        self._channel.send(Done(lease.lease_id, len(data), digest, elapsed, picture.used))

    def _encode(self, lease: Lease, picture: Picture) -> bytes:
        info = png_info(lease, picture.used)
        stream = BytesIO()
        image: Image = picture.image
        image.save(stream, "PNG", pnginfo=info, compress_level=self._compress_level)
        return stream.getvalue()


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
