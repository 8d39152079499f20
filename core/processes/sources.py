"""What main waits for: messages from workers, their deaths, and commands from other threads."""

import contextlib
from multiprocessing import Pipe
from selectors import EVENT_READ, DefaultSelector

from core.engine.worker_handle import WorkerHandle


class Sources:
    """Told once of each source: with 64 workers, to name all of them anew at every wait would
    take longer than to handle what comes."""

    def __init__(self) -> None:
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._selector = DefaultSelector()
        self._selector.register(self._wake_reader, EVENT_READ)
        self._messages: dict[str, int] = {}  # file descriptors by worker
        self._deaths: dict[str, int] = {}

    def add(self, worker: WorkerHandle) -> None:
        """Watch the incarnation that was just started."""
        assert worker.from_worker is not None and worker.process is not None
        for known, source in (
            (self._messages, worker.from_worker.fileno()),
            (self._deaths, worker.process.sentinel),
        ):
            known[worker.name] = source
            self._selector.register(source, EVENT_READ, worker)

    def drop(self, worker: WorkerHandle) -> None:
        """Watch the incarnation no more; call it before its pipes are closed."""
        self.drop_messages(worker)
        if (sentinel := self._deaths.pop(worker.name, None)) is not None:
            self._selector.unregister(sentinel)

    def drop_messages(self, worker: WorkerHandle) -> None:
        """Nothing more comes from it but its death."""
        if (messages := self._messages.pop(worker.name, None)) is not None:
            self._selector.unregister(messages)

    def wait(self, seconds: float) -> list[WorkerHandle]:
        """Workers that said something or died; ends early at `wake`."""
        keys = [key for key, _ in self._selector.select(seconds)]
        if any(key.data is None for key in keys):
            self._wake_reader.recv_bytes()
        return list(dict.fromkeys(key.data for key in keys if key.data is not None))

    def wake(self) -> None:
        """End a wait; from any thread, and from signal handlers."""
        with contextlib.suppress(OSError):  # closed
            self._wake_writer.send_bytes(b"")

    def close(self) -> None:
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
