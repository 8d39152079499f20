"""The requests of a batch that are handed in and have no lines yet.

They are jobs of a few hundred pictures, two at a time. What a job is to be is on the disk before
the job is; a portion is forgotten when the batch says that its lines count.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from apps.openai_images.batch_file import BadLine, BatchRequest
from apps.openai_images.batch_lines import BatchRow
from apps.openai_images.parameters import MOST_PICTURES
from apps.server.batches.progress import BatchProgress, EndsEarly, Leaving
from apps.server.batches.record import BatchStatus
from apps.server.batches.store import Portion
from apps.server.batches.tools import Tools
from apps.server.errors import ApiError
from apps.server.records import NewJob, StoredJob, new_id

SOURCE = "batch"
PICTURES, LINES = 250, 250  # of one portion
AT_ONCE = 2  # portions that are handed in: workers have the second one while the first ends
_UNTRIED: dict[BatchStatus, tuple[str, str]] = {
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was tried."),
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


class Portions:
    """Those of one batch, in the order of its file. In the event loop."""

    def __init__(self, tools: Tools, progress: BatchProgress) -> None:
        self._tools = tools
        self._progress = progress
        self._portions: deque[Portion] = deque()
        self._wanted: set[str] = set()  # jobs whose results are still to be written

    def __len__(self) -> int:
        return len(self._portions)

    @property
    def are_enough(self) -> bool:
        """No more need to be handed in now."""
        return len(self._portions) >= AT_ONCE

    @property
    def lines(self) -> int:
        """Lines of the file that are in them."""
        return sum(len(portion.rows) for portion in self._portions)

    def counts(self) -> tuple[int, int]:
        """How many of their requests have come to their end, well and otherwise."""
        completed = failed = 0
        for portion in self._portions:
            live = self._tools.service.live(portion.job) if portion.job else None
            ended = {r.position: bool(r.result["success"]) for r in live.results} if live else {}
            for row in portion.rows:
                own = [ended.get(row.first + number) for number in range(row.pictures)]
                failed += not own or False in own
                completed += bool(own) and all(own)
        return completed, failed

    def let_go_all(self) -> None:
        """Want no more of their results: whoever goes on with the batch finds them again."""
        for job in list(self._wanted):
            self._let_go(job)

    async def find(self) -> None:
        """Those that were handed in by an earlier daemon; one that was not is forgotten."""
        batch, store = self._progress.batch, self._tools.store
        for number in range(batch.portion, batch.portion + AT_ONCE + 1):
            portion = await asyncio.to_thread(store.portion, batch, number)
            if portion is None:
                return
            self._want(portion.job)
            if portion.job is not None and await self._job(portion.job) is None:
                self._let_go(portion.job)
                await self._progress.patiently(partial(store.remove_portion, batch, number))
                return
            self._portions.append(portion)

    async def hand_in(self, lines: Iterator[BatchRequest | BadLine]) -> bool:
        """Hand in the next portion; False if there is none."""
        batch, job = self._progress.batch, new_id("job")
        rows: list[BatchRow] = []
        tasks: list[dict[str, Any]] = []
        limit = self._tools.service.most_tasks
        most = max(1, min(PICTURES, limit - MOST_PICTURES + 1))  # one request more fits
        while len(rows) < LINES and len(tasks) < most:
            item = await asyncio.to_thread(next, lines, None)
            if item is None:
                break
            if isinstance(item, BadLine):
                rows.append(BatchRow.of_bad_line(item))
                continue
            if self._progress.ends_early is not None:
                rows.append(self._untried(item.line, item.custom_id))
                continue
            try:
                made = await self._progress.when_there_is_room(
                    partial(self._tools.tasks.of, item, batch.caller, job, len(tasks))
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
        await self._progress.patiently(partial(self._tools.store.save_portion, batch, portion))
        if tasks:
            self._want(job)
            portion = await self._submit(portion, tasks)
            if portion.job is None:
                self._let_go(job)
        self._portions.append(portion)
        return True

    async def _submit(self, portion: Portion, tasks: list[dict[str, Any]]) -> Portion:
        """Hand in the job of a portion; returns the portion as it is then."""
        batch, told = self._progress.batch, {"batch": self._progress.batch.id}
        job = NewJob(
            batch.caller, tuple(tasks), batch.priority, SOURCE, metadata=told, id=str(portion.job)
        )

        async def submit() -> None:
            _use_again(tasks)
            await self._tools.service.submit(job)

        try:
            await self._progress.when_there_is_room(submit)
            return portion
        except EndsEarly:
            rows = [self._untried(r.line, r.custom_id) if r.wanted else r for r in portion.rows]
        except ApiError as error:
            if error.status == 503:  # it drains
                raise Leaving from None
            refused = partial(BatchRow.refused, error=error)
            rows = [refused(r.line, r.custom_id) if r.wanted else r for r in portion.rows]
        portion = Portion(portion.number, rows, None)
        await self._progress.patiently(partial(self._tools.store.save_portion, batch, portion))
        return portion

    async def pass_over(self, lines: Iterator[BatchRequest | BadLine]) -> bool:
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
            await self._write(rows, None, {}, int(time.time()), self._progress.batch.portion)
        return bool(rows)

    async def settle(self) -> None:
        """Wait for the end of the oldest one, or for news of the batch; write its lines."""
        portion = self._portions[0]
        results: Mapping[int, Mapping[str, Any]] = {}
        rows, now = portion.rows, int(time.time())
        if portion.job is not None:
            stored = await self._job(portion.job)
            if stored is not None and not stored.has_ended:
                early = self._progress.ends_early is not None
                if early:
                    for each in self._portions:
                        await self._cancel_job(each.job)
                await self._until_end_or_news(portion.job, early)
                return
            if stored is not None:
                found = await self._tools.service.results(stored, 0, stored.total)
                results = {one.position: one.result for one in found}
                now = int(stored.ended or now)
            if self._progress.ends_early is not None:
                rows = [self._untried_if_so(row, results) for row in rows]
        await self._write(rows, portion.job, results, now, portion.number + 1)
        self._portions.popleft()
        self._let_go(portion.job)
        await self._progress.patiently(
            partial(self._tools.store.remove_portion, self._progress.batch, portion.number)
        )

    async def _write(
        self,
        rows: Sequence[BatchRow],
        job: str | None,
        results: Mapping[int, Mapping[str, Any]],
        created: int,
        portion: int,
    ) -> None:
        add = self._tools.lines.add
        written = await self._progress.patiently(
            partial(add, self._progress.batch, rows, job, results, created)
        )
        names = ("completed", "failed", "output_bytes", "error_bytes")
        await self._progress.save(
            portion=portion, **{name: getattr(written, name) for name in names}
        )

    def _untried(self, line: int, custom_id: str | None) -> BatchRow:
        code, message = _UNTRIED[self._progress.ends_early or "cancelled"]
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
            self._tools.service.wanted.add(job)

    def _let_go(self, job: str | None) -> None:
        if job in self._wanted:
            self._wanted.discard(job)
            self._tools.service.wanted.discard(job)

    async def _job(self, id: str) -> StoredJob | None:
        with suppress(ApiError):
            return await self._tools.service.find(id, self._progress.batch.caller)
        return None

    async def _cancel_job(self, id: str | None) -> None:
        stored = await self._job(id) if id is not None else None
        if stored is not None and not stored.has_ended:
            await self._progress.when_there_is_room(partial(self._tools.service.cancel, stored))

    async def _until_end_or_news(self, job: str, early: bool) -> None:
        """Wait until a job has ended, or until there is news of the batch.

        Args:
            early: the batch ends early: its own end is no news.

        Raises:
            Leaving: the daemon ends.
        """
        self._progress.listen()
        live = self._tools.service.live(job)
        if live is None:
            return
        end = await self._progress.or_news(
            live.end_of_it(), None if early else self._progress.seconds_left
        )
        if not end.cancelled() and end.exception() is not None:
            raise Leaving


def _use_again(tasks: list[dict[str, Any]]) -> None:
    """Keep the pictures of tasks that wait for room from being swept as unused."""
    for task in tasks:
        for source in task.get("source_images", ()):
            with suppress(OSError):
                Path(source).touch()
