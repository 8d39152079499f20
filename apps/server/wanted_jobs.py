"""Jobs whose results somebody is about to take: they are kept until then, however old they are."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class WantedJobs:
    """Counts who waits for the results of which job. All of it in the event loop."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    def __contains__(self, id: str) -> bool:
        return id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, id: str) -> None:
        """Somebody waits for a job's results, from before it is handed in."""
        self._waiting[id] += 1

    def discard(self, id: str) -> None:
        """They have them, or wait no longer."""
        self._waiting[id] -= 1
        if self._waiting[id] <= 0:
            del self._waiting[id]

    @contextmanager
    def hold(self, id: str) -> Iterator[None]:
        """Somebody waits meanwhile."""
        self.add(id)
        try:
            yield
        finally:
            self.discard(id)
