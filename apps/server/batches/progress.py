"""How far a batch is: its record on the disk, its early end, and what its work waits for."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from loguru import logger

from apps.server.batches.record import OPEN, Batch, BatchStatus
from apps.server.batches.store import BatchStore
from apps.server.errors import SERVER, ApiError
from core.errors import MultiGPUError, StorageError

T = TypeVar("T")
PAUSE = 2.0  # seconds until what was refused for want of room is tried again
LATER = (429, 507)  # answers that mean so


class Leaving(Exception):
    """The daemon is about to end; the batch goes on when it starts again."""


class EndsEarly(Exception):
    """The batch was cancelled, or its time is up."""


@dataclass
class BatchProgress:
    """One batch while it is worked on, in the event loop. What it waits for, news of it end early.

    Attributes:
        batch: as it is on the disk.
        leaving: the daemon is about to end.
    """

    store: BatchStore
    batch: Batch
    leaving: bool = False
    _poked: asyncio.Event = field(default_factory=asyncio.Event)
    _saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def cancel(self) -> None:
        """Have no more requests tried.

        Raises:
            StorageError: the disk refuses.
        """
        await self.save_once(OPEN, status="cancelling")
        self._poked.set()

    def leave(self) -> None:
        """Have the work stop at the next point from which it can go on."""
        self.leaving = True
        self._poked.set()

    # -- how it stands -------------------------------------------------------------

    @property
    def ends_early(self) -> BatchStatus | None:
        """As what the batch ends, if not every request is tried."""
        if "cancelling" in self.batch.times:
            return "cancelled"
        return "expired" if "expired" in self.batch.times else None

    @property
    def seconds_left(self) -> float:
        """Seconds until no more requests are tried."""
        return max(0.0, self.batch.expires - time.time())

    @property
    def is_late(self) -> bool:
        """No time is left."""
        return not self.seconds_left

    def refuse_to_stay(self) -> None:
        """Go no further where the daemon is about to end.

        Raises:
            Leaving: it is.
        """
        if self.leaving:
            raise Leaving

    # -- its record ----------------------------------------------------------------

    async def save(self, only_from: Collection[BatchStatus] = (), **changes: Any) -> None:
        """Change the batch, however long the disk takes.

        Args:
            only_from: the status changes only if it is one of these; by default in any case.
        """
        await self._again_and_again(partial(self.save_once, only_from, **changes))

    async def save_once(self, only_from: Collection[BatchStatus] = (), **changes: Any) -> None:
        """Change the batch, or leave it as it is.

        Raises:
            StorageError: the disk refuses.
        """
        async with self._saving:
            if only_from and self.batch.status not in only_from:
                changes.pop("status", None)
            status = changes.get("status")
            if status is not None:
                times = {**changes.get("times", self.batch.times)}
                times.setdefault(status, int(time.time()))
                changes["times"] = times
            batch = replace(self.batch, **changes)
            await asyncio.to_thread(self.store.save, batch)
            self.batch = batch

    # -- news ----------------------------------------------------------------------

    def listen(self) -> None:
        """Take what has come so far for known: only what comes from now on is news.

        Raises:
            Leaving: the daemon ends.
        """
        self._poked.clear()
        self.refuse_to_stay()

    async def or_news(
        self, wanted: Coroutine[Any, Any, T], timeout: float | None
    ) -> "asyncio.Task[T]":
        """Wait for something, for news of the batch, or for so many seconds.

        Returns:
            What was waited for: done, or cancelled if it did not come.
        """
        waiting = asyncio.ensure_future(wanted)
        poked = asyncio.ensure_future(self._poked.wait())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({waiting, poked}, timeout=timeout, return_when=first)
        for each in (waiting, poked):
            each.cancel()  # of one that is done nothing changes
        await asyncio.gather(waiting, poked, return_exceptions=True)
        return waiting

    # -- what the disk, or the queue, has no room for ----------------------------------------

    async def patiently(self, work: Callable[[], T]) -> T:
        """What waits for the disk, tried until the disk takes it."""

        async def once() -> T:
            return await asyncio.to_thread(work)

        return await self._again_and_again(once)

    async def _again_and_again(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return await work()
            except StorageError as error:
                logger.warning(f"{self.batch.id} waits for the disk: {error}")
                await self._pause(PAUSE)

    async def when_there_is_room(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Try what needs room in the queue or on the disk until there is.

        Raises:
            ApiError: it is refused for another reason.
            EndsEarly: the batch ends before there is.
            Leaving: the daemon ends.
        """
        early = self.ends_early
        while True:
            try:
                return await work()
            except ApiError as error:
                if error.status not in LATER:
                    raise
                await self._pause(min(PAUSE, float(error.headers.get("Retry-After", PAUSE))))
            except MultiGPUError as error:
                if not isinstance(error, StorageError):
                    raise ApiError(500, str(error), "failed", type=SERVER) from None
                await self._pause(PAUSE)
            if self.ends_early != early or (early is None and self.is_late):
                raise EndsEarly

    async def _pause(self, seconds: float) -> None:
        if not self.leaving:
            self._poked.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), seconds)
        self.refuse_to_stay()
