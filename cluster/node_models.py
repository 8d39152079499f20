"""Hub models of one node: each is fetched once, whatever main's own machine has of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from cluster.protocol import FetchNews, FromAgent
from core.engine.fetch import Fetch
from core.events import Event, Listener, ModelFetching
from core.messages import Load, LoadFailed, ToWorker
from core.worker_spec import WorkerSpec


class CanFetch(Protocol):
    """Brings a model to this node; None where nothing has to be brought."""

    def __call__(self, spec: WorkerSpec, listener: Listener) -> Fetch | None: ...


class NodeModels:
    """Fetches models, and tells workers where they lie here.

    Args:
        can_fetch: of the node's backend.
    """

    def __init__(self, can_fetch: CanFetch) -> None:
        self._can_fetch = can_fetch
        self._tell: Callable[[FromAgent], None] = lambda report: None
        self._wake: Callable[[], None] = lambda: None
        self._fetches: dict[int, tuple[str, Fetch]] = {}
        self._bytes: dict[int, int] = {}

    def use(self, tell: Callable[[FromAgent], None], wake: Callable[[], None]) -> None:
        """Report by `tell`; `wake` has the workers looked at again. Both from any thread."""
        self._tell, self._wake = tell, wake

    def fetch(self, number: int, spec: WorkerSpec) -> None:
        """Begin to fetch a model, which main knows by a number; the second time does nothing."""
        if number in self._fetches:
            return

        def hear(event: Event) -> None:
            if isinstance(event, ModelFetching):
                self._bytes[number] = event.done
                self._tell(FetchNews(number, done=event.done, total=event.total))

        found = self._can_fetch(spec, hear)
        if found is None:
            return
        self._fetches[number] = spec.source, found

        def changed() -> None:
            if found.folder is not None or found.refusal is not None:
                self._tell(FetchNews(number, found.folder, found.refusal))
            self._wake()

        found.on_change = changed
        found.start()

    def stop(self, number: int) -> None:
        """End a fetch, wherever it is."""
        known = self._fetches.pop(number, None)
        if known is not None:
            known[1].stop()

    def progress(self, spec: WorkerSpec) -> int:
        """Bytes that came of a worker's model: it may be waiting for them."""
        return sum(
            self._bytes.get(number, 0)
            for number, (source, _) in self._fetches.items()
            if source == spec.source
        )

    def placed(self, message: ToWorker, spec: WorkerSpec) -> ToWorker | LoadFailed | None:
        """The message with this node's folder of the model.

        Returns None while the model is on its way, and `LoadFailed` in place of a worker's own
        where it cannot be had.
        """
        if not isinstance(message, Load) or not message.folder:
            return message
        own = [fetch for source, fetch in self._fetches.values() if source == spec.source]
        folder = next((fetch.folder for fetch in own if fetch.folder is not None), None)
        if folder is not None:
            return replace(message, folder=folder)
        refusal = next((fetch.refusal for fetch in own if fetch.refusal is not None), None)
        return LoadFailed("input", refusal) if refusal is not None else None

    def close(self) -> None:
        """End all fetches."""
        for number in list(self._fetches):
            self.stop(number)
