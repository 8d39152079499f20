"""The work on one batch, from its validation to its files of results.

Its requests are handed in as jobs of a few hundred pictures, two at a time: a batch of any size
takes little of the queue, and little memory. What a job is to be is on the disk before the job is,
and lines count once the batch says so; so whatever dies, each request has one line in the end.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from apps.openai_images.batch_file import BadLine, BatchFile, BatchRequest
from apps.openai_images.batch_lines import BatchRow
from apps.openai_images.parameters import MOST_PICTURES
from apps.server.batches.lines import LineFiles
from apps.server.batches.record import OPEN, Batch, BatchStatus, BatchView
from apps.server.batches.requests import RequestTasks
from apps.server.batches.store import ERRORS, INPUT, OUTPUT, BatchStore, Portion
from apps.server.batches.validation import validate
from apps.server.errors import SERVER, ApiError
from apps.server.file_store import FileStore, new_file_id
from apps.server.files import OF_BATCHES
from apps.server.records import NewJob, StoredJob, new_id
from apps.server.service import Service
from core.errors import InputError, MultiGPUError, StorageError

T = TypeVar("T")
SOURCE = "batch"
PICTURES, LINES = 250, 250  # of one portion
AT_ONCE = 2  # portions that are handed in: workers have the second one while the first ends
PAUSE = 2.0  # seconds until what was refused for want of room is tried again
LATER = (429, 507)  # answers that mean so
OUTPUT_PURPOSE = "batch_output"
_UNTRIED: dict[BatchStatus, tuple[str, str]] = {
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was tried."),
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


class Leaving(Exception):
    """The daemon is about to end; the batch goes on when it starts again."""


class EndsEarly(Exception):
    """The batch was cancelled, or its time is up."""


@dataclass
class Tools:
    """What all batches of a daemon share."""

    service: Service
    store: BatchStore
    files: FileStore
    tasks: RequestTasks
    lines: LineFiles


@dataclass
class BatchRunner:
    """Works on one batch, in the event loop.

    Args:
        turns: held while requests are handed in, so that a caller's batches come one by one.
    """

    tools: Tools
    batch: Batch
    turns: asyncio.Lock
    _portions: deque[Portion] = field(default_factory=deque)
    _poked: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: set[str] = field(default_factory=set)  # jobs whose results are still to be written
    _leaving: bool = False
    _saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Bring the batch to its end, or as far as it comes before the daemon ends."""
        try:
            if self.batch.status == "validating" or not self.batch.total:
                await self._validate()
            if not self.batch.has_ended:
                await self._work()
                await self._finish()
        except Leaving:
            pass
        except Exception:
            logger.exception(f"{self.batch.id} cannot go on; this is a defect.")
            problem = {"code": "server_error", "message": "The server had an error.", "line": None}
            with suppress(Leaving):
                await self._save(status="failed", problems=(problem,))
        finally:
            for job in list(self._wanted):
                self._let_go(job)

    async def cancel(self) -> None:
        """Have no more requests tried.

        Raises:
            StorageError: the disk refuses.
        """
        await self._save_once(OPEN, status="cancelling")
        self._poked.set()

    def leave(self) -> None:
        """Stop at the next point from which the batch can go on."""
        self._leaving = True
        self._poked.set()

    def view(self) -> BatchView:
        """The batch as callers see it, with requests whose job has not ended."""
        completed = failed = 0
        for portion in self._portions:
            live = self.tools.service.live(portion.job) if portion.job else None
            ended = {r.position: bool(r.result["success"]) for r in live.results} if live else {}
            for row in portion.rows:
                own = [ended.get(row.first + number) for number in range(row.pictures)]
                failed += not own or False in own
                completed += bool(own) and all(own)
        return self.batch.view(completed, failed)

    # -- the way of a batch ------------------------------------------------------------

    async def _validate(self) -> None:
        try:
            found = await asyncio.to_thread(validate, self._file())
        except (InputError, OSError) as error:
            problems = ({"code": "file_unreadable", "message": str(error), "line": None},)
            await self._save(status="failed", problems=problems)
            return
        if found.problems:
            await self._save(status="failed", problems=found.problems)
        else:
            await self._save({"validating"}, status="in_progress", total=found.total)

    async def _work(self) -> None:
        if self.batch.status not in ("in_progress", "cancelling"):
            return
        held = await self._turn()
        try:
            await self._find_portions()
            lines = iter(self._file())
            await asyncio.to_thread(_skip, lines, self._given)
            exhausted = False
            while not exhausted or self._portions:
                self._refuse_to_stay()
                if self._ends_early is None and self._is_late:
                    await self._save(times={**self.batch.times, "expired": int(time.time())})
                if self._ends_early is None and not exhausted and len(self._portions) < AT_ONCE:
                    exhausted = not await self._hand_in(lines)
                elif self._portions:
                    await self._settle(self._portions[0])
                else:
                    exhausted = not await self._pass_over(lines)
        finally:
            if held:
                self.turns.release()

    async def _finish(self) -> None:
        """Give the caller its files."""
        batch = self.batch
        if batch.status in ("in_progress", "cancelling"):
            await self._save(
                status="finalizing",
                output_file=new_file_id() if batch.output_bytes else None,
                error_file=new_file_id() if batch.error_bytes else None,
            )
        await self._patiently(self._give_files)
        await self._save(status=self._ends_early or "completed")
        await self._patiently(partial(self.tools.store.clear, self.batch))

    def _give_files(self) -> None:
        batch, tools = self.batch, self.tools
        seconds = batch.output_seconds or OF_BATCHES
        for id, name, what in (
            (batch.output_file, OUTPUT, "output"),
            (batch.error_file, ERRORS, "error"),
        ):
            if id is not None:
                place = tools.store.place(batch, name)
                shown = f"{batch.id}_{what}.jsonl"
                if place.exists():  # else this was done before
                    tools.files.adopt(id, batch.caller, shown, OUTPUT_PURPOSE, place, seconds)

    # -- portions ----------------------------------------------------------------------

    async def _find_portions(self) -> None:
        """Those that were handed in by an earlier daemon; one that was not is forgotten."""
        batch, store = self.batch, self.tools.store
        for number in range(batch.portion, batch.portion + AT_ONCE + 1):
            portion = await asyncio.to_thread(store.portion, batch, number)
            if portion is None:
                return
            self._want(portion.job)
            if portion.job is not None and await self._job(portion.job) is None:
                await self._patiently(partial(store.remove_portion, batch, number))
                return
            self._portions.append(portion)

    async def _hand_in(self, lines: Iterator[BatchRequest | BadLine]) -> bool:
        """Hand in the next portion; False if there is none."""
        batch, job = self.batch, new_id("job")
        rows: list[BatchRow] = []
        tasks: list[dict[str, Any]] = []
        limit = self.tools.service.most_tasks
        most = max(1, min(PICTURES, limit - MOST_PICTURES + 1))  # one request more fits
        while len(rows) < LINES and len(tasks) < most:
            item = await asyncio.to_thread(next, lines, None)
            if item is None:
                break
            if isinstance(item, BadLine):
                rows.append(BatchRow.of_bad_line(item))
                continue
            if self._ends_early is not None:
                rows.append(self._untried(item.line, item.custom_id))
                continue
            try:
                made = await self._when_there_is_room(
                    partial(self.tools.tasks.of, item, batch.caller, job, len(tasks))
                )
            except EndsEarly:
                rows.append(self._untried(item.line, item.custom_id))
                continue
            except ApiError as error:
                rows.append(BatchRow.refused(item.line, item.custom_id, error))
                continue
            rows.append(BatchRow.of_request(item, len(tasks)))
            tasks += made
        if not rows:
            return False
        number = batch.portion + len(self._portions)
        portion = Portion(number, rows, job if tasks else None)
        await self._patiently(partial(self.tools.store.save_portion, batch, portion))
        if tasks:
            self._want(job)
            portion = await self._submit(portion, tasks)
        self._portions.append(portion)
        return True

    async def _submit(self, portion: Portion, tasks: list[dict[str, Any]]) -> Portion:
        """Hand in the job of a portion; returns the portion as it is then."""
        batch, told = self.batch, {"batch": self.batch.id}
        job = NewJob(
            batch.caller, tuple(tasks), batch.priority, SOURCE, metadata=told, id=str(portion.job)
        )

        async def submit() -> None:
            _use_again(tasks)
            await self.tools.service.submit(job)

        try:
            await self._when_there_is_room(submit)
            return portion
        except EndsEarly:
            rows = [self._untried(r.line, r.custom_id) if r.wanted else r for r in portion.rows]
        except ApiError as error:
            if error.status == 503:  # it drains
                raise Leaving from None
            refused = partial(BatchRow.refused, error=error)
            rows = [refused(r.line, r.custom_id) if r.wanted else r for r in portion.rows]
        portion = Portion(portion.number, rows, None)
        await self._patiently(partial(self.tools.store.save_portion, batch, portion))
        return portion

    async def _pass_over(self, lines: Iterator[BatchRequest | BadLine]) -> bool:
        """Say of the next lines that nobody looks at them any more; False if there are none."""
        rows: list[BatchRow] = []
        while len(rows) < 4 * LINES:
            item = await asyncio.to_thread(next, lines, None)
            if item is None:
                break
            if isinstance(item, BadLine):
                rows.append(BatchRow.of_bad_line(item))
            else:
                rows.append(self._untried(item.line, item.custom_id))
        if rows:
            await self._write(rows, None, {}, int(time.time()), self.batch.portion)
        return bool(rows)

    async def _settle(self, portion: Portion) -> None:
        """Wait for the end of the oldest portion, or for news of the batch; write its lines."""
        results: Mapping[int, Mapping[str, Any]] = {}
        rows, now = portion.rows, int(time.time())
        if portion.job is not None:
            stored = await self._job(portion.job)
            if stored is not None and not stored.has_ended:
                early = self._ends_early is not None
                if early:
                    for each in self._portions:
                        await self._cancel_job(each.job)
                await self._until_end_or_news(portion.job, early)
                return
            if stored is not None:
                found = await self.tools.service.results(stored, 0, stored.total)
                results = {one.position: one.result for one in found}
                now = int(stored.ended or now)
            if self._ends_early is not None:
                rows = [self._untried_if_so(row, results) for row in rows]
        await self._write(rows, portion.job, results, now, portion.number + 1)
        self._portions.popleft()
        self._let_go(portion.job)
        await self._patiently(partial(self.tools.store.remove_portion, self.batch, portion.number))

    async def _write(
        self,
        rows: Any,
        job: str | None,
        results: Mapping[int, Mapping[str, Any]],
        created: int,
        portion: int,
    ) -> None:
        add = self.tools.lines.add
        written = await self._patiently(partial(add, self.batch, rows, job, results, created))
        names = ("completed", "failed", "output_bytes", "error_bytes")
        await self._save(portion=portion, **{name: getattr(written, name) for name in names})

    def _untried(self, line: int, custom_id: str | None) -> BatchRow:
        code, message = _UNTRIED[self._ends_early or "cancelled"]
        return BatchRow.not_tried(line, str(custom_id), code, message)

    def _untried_if_so(self, row: BatchRow, results: Mapping[int, Mapping[str, Any]]) -> BatchRow:
        own = [results.get(row.first + number, {}) for number in range(row.pictures)]
        if any(result.get("status") == "interrupted" for result in own):
            return self._untried(row.line, row.custom_id)
        return row

    # -- jobs ------------------------------------------------------------------------

    def _want(self, job: str | None) -> None:
        """Have the results of a job kept until they are written, however old they are."""
        if job is not None and job not in self._wanted:
            self._wanted.add(job)
            self.tools.service.wanted.add(job)

    def _let_go(self, job: str | None) -> None:
        if job in self._wanted:
            self._wanted.discard(job)
            self.tools.service.wanted.discard(job)

    async def _job(self, id: str) -> StoredJob | None:
        with suppress(ApiError):
            return await self.tools.service.find(id, self.batch.caller)
        return None

    async def _cancel_job(self, id: str | None) -> None:
        stored = await self._job(id) if id is not None else None
        if stored is not None and not stored.has_ended:
            await self._when_there_is_room(partial(self.tools.service.cancel, stored))

    async def _until_end_or_news(self, job: str, early: bool) -> None:
        """Wait until a job has ended, or until there is news of the batch.

        Args:
            early: the batch ends early: its own end is no news.

        Raises:
            Leaving: the daemon ends.
        """
        self._poked.clear()
        self._refuse_to_stay()
        live = self.tools.service.live(job)
        if live is None:
            return
        end = await self._or_news(live.end_of_it(), None if early else self._seconds_left)
        if not end.cancelled() and end.exception() is not None:
            raise Leaving

    async def _or_news(
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

    # -- how the batch stands ----------------------------------------------------------

    @property
    def _ends_early(self) -> BatchStatus | None:
        """As what the batch ends, if not every request is tried."""
        if "cancelling" in self.batch.times:
            return "cancelled"
        return "expired" if "expired" in self.batch.times else None

    @property
    def _seconds_left(self) -> float:
        return max(0.0, self.batch.expires - time.time())

    @property
    def _is_late(self) -> bool:
        return not self._seconds_left

    @property
    def _given(self) -> int:
        """Lines of the file that have their line, or are in a portion."""
        return self.batch.written + sum(len(portion.rows) for portion in self._portions)

    def _file(self) -> BatchFile:
        rules = self.tools.service.rules.images
        return BatchFile(self._input, rules, self.batch.endpoint)

    @property
    def _input(self) -> Path:
        return self.tools.store.place(self.batch, INPUT)

    async def _turn(self) -> bool:
        """Wait until the caller's batches before this one are done; False if it ends meanwhile."""
        turn = await self._or_news(self.turns.acquire(), self._seconds_left)
        held = not turn.cancelled()
        if self._leaving and held:
            self.turns.release()
        self._refuse_to_stay()
        return held

    def _refuse_to_stay(self) -> None:
        if self._leaving:
            raise Leaving

    async def _save(self, only_from: Collection[BatchStatus] = (), **changes: Any) -> None:
        """Change the batch, however long the disk takes.

        Args:
            only_from: the status changes only if it is one of these; by default in any case.
        """
        await self._again_and_again(partial(self._save_once, only_from, **changes))

    async def _save_once(self, only_from: Collection[BatchStatus] = (), **changes: Any) -> None:
        async with self._saving:
            if only_from and self.batch.status not in only_from:
                changes.pop("status", None)
            status = changes.get("status")
            if status is not None:
                times = {**changes.get("times", self.batch.times)}
                times.setdefault(status, int(time.time()))
                changes["times"] = times
            batch = replace(self.batch, **changes)
            await asyncio.to_thread(self.tools.store.save, batch)
            self.batch = batch

    # -- what the disk, or the queue, has no room for ----------------------------------------

    async def _patiently(self, work: Callable[[], T]) -> T:
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

    async def _when_there_is_room(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Try what needs room in the queue or on the disk until there is.

        Raises:
            ApiError: it is refused for another reason.
            EndsEarly: the batch ends before there is.
            Leaving: the daemon ends.
        """
        early = self._ends_early
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
            if self._ends_early != early or (early is None and self._is_late):
                raise EndsEarly

    async def _pause(self, seconds: float) -> None:
        if not self._leaving:
            self._poked.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), seconds)
        self._refuse_to_stay()


def _skip(lines: Iterator[Any], count: int) -> None:
    for _, _ in zip(range(count), lines, strict=False):
        pass


def _use_again(tasks: list[dict[str, Any]]) -> None:
    """Keep the pictures of tasks that wait for room from being swept as unused."""
    for task in tasks:
        for source in task.get("source_images", ()):
            with suppress(OSError):
                Path(source).touch()
