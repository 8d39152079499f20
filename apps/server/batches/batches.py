"""All batches of a daemon."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

from apps.server.batches.lines import LineFiles
from apps.server.batches.record import OPEN, WINDOW_SECONDS, Batch, BatchView
from apps.server.batches.requests import RequestTasks
from apps.server.batches.runner import BatchRunner
from apps.server.batches.store import BatchStore
from apps.server.batches.tools import Tools
from apps.server.errors import ApiError, leaving, not_found
from apps.server.file_store import FileStore, StoredFile
from apps.server.images.links import Links
from apps.server.priorities import USUAL_OF_BATCHES, allowed
from apps.server.records import new_id
from apps.server.service import Service

MOST_OPEN = 100  # batches of a caller that have not ended


class Batches:
    """Accepts batches, works on them, and tells how they stand.

    A caller's batches are done one after the other; those of several callers side by side.

    Args:
        hidden: what callers read in place of folders of this machine.

    Raises:
        StorageError: the service's folder cannot be written.
    """

    def __init__(
        self,
        service: Service,
        files: FileStore,
        tasks: RequestTasks,
        links: Links,
        hidden: Callable[[], Mapping[str, str]],
    ) -> None:
        store = BatchStore(service.folder)
        lifetime = 3600 * service.rules.keep_results
        lines = LineFiles(store, service.folder, links, lifetime, hidden)
        self._tools = Tools(service, store, files, tasks, lines)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._runners: dict[str, BatchRunner] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._leaving = False
        service.sweepers.append(partial(store.sweep, lifetime))

    def start(self) -> None:
        """Carry on with the batches that have not ended; the service has started."""
        for batch in self._tools.store.all():
            if not batch.has_ended:
                self._take(batch)

    async def close(self) -> None:
        """Let go of all batches; the service is about to stop."""
        self._leaving = True
        for runner in self._runners.values():
            runner.leave()
        if self._work:
            await asyncio.wait(self._work)

    async def create(
        self,
        caller: str,
        file: StoredFile,
        endpoint: str,
        metadata: Mapping[str, str] | None,
        output_seconds: int | None,
        address: str,
        most_priority: int,
    ) -> BatchView:
        """Accept a batch; on return it survives whatever comes.

        Raises:
            ApiError: 429 if the caller has too many, 503 while the daemon leaves.
            StorageError: the disk refuses.
        """
        if self._leaving or self._tools.service.draining:
            raise leaving("The server is about to stop and takes no new batches.")
        mine = sum(runner.batch.caller == caller for runner in self._runners.values())
        if mine >= MOST_OPEN:
            message = f"You have {mine} batches that have not ended; {MOST_OPEN} are the most."
            raise ApiError(
                429,
                message,
                "rate_limit_exceeded",
                type="rate_limit_error",
                headers={"Retry-After": "60"},
            )
        store, now = self._tools.store, int(time.time())
        batch = Batch(
            new_id("batch"),
            store.next_number(),
            caller,
            endpoint,
            file.id,
            metadata,
            address,
            now,
            now + WINDOW_SECONDS,
            output_seconds,
            priority=allowed(most_priority, usual=USUAL_OF_BATCHES),
        )
        await asyncio.to_thread(store.add, batch, self._tools.files.path(file))
        if self._leaving:
            return batch.view()
        return self._take(batch).view()

    def view(self, id: str, caller: str) -> BatchView:
        """A batch as it stands.

        Raises:
            ApiError: 404: there is none, or it is somebody else's.
        """
        return self._view(self._find(id, caller))

    def page(self, caller: str, after: str | None, limit: int) -> tuple[list[BatchView], bool]:
        """The caller's newest batches, newest first, and whether there are more.

        Args:
            after: id of the last one of the page before.

        Raises:
            ApiError: 404: there is none of that id.
        """
        before = None if after is None else self._find(after, caller).number
        mine = [
            batch
            for batch in reversed(self._tools.store.all())
            if batch.caller == caller and (before is None or batch.number < before)
        ]
        return [self._view(batch) for batch in mine[:limit]], len(mine) > limit

    async def cancel(self, id: str, caller: str) -> BatchView:
        """Have no more of a batch's requests tried. What runs is finished and kept.

        Raises:
            ApiError: 404 as in `view`; 409: it has ended, or is about to.
            StorageError: the disk refuses.
        """
        batch = self._find(id, caller)
        runner = self._runners.get(id)
        if runner is None or batch.status not in (*OPEN, "cancelling"):
            message = f"Cannot cancel a batch with status '{batch.status}'."
            raise ApiError(409, message, "batch_not_cancellable")
        await runner.cancel()
        return self.view(id, caller)

    def _find(self, id: str, caller: str) -> Batch:
        found = self._tools.store.find(id, caller)
        if found is None:
            raise not_found(f"No batch found with id '{id[:100]}'.", "batch_not_found")
        return found

    def _view(self, batch: Batch) -> BatchView:
        runner = self._runners.get(batch.id)
        return runner.view() if runner is not None else batch.view()

    def _take(self, batch: Batch) -> BatchRunner:
        runner = BatchRunner(self._tools, batch, self._turns[batch.caller])
        self._runners[batch.id] = runner
        task = asyncio.create_task(runner.run())
        self._work.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._work.discard(task)
            self._runners.pop(batch.id, None)

        task.add_done_callback(ended)
        return runner
