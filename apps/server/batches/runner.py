"""The work on one batch, from its validation to its files of results.

A batch of any size takes little of the queue, and little memory: its requests are handed in a few
hundred at a time (`portions`). Lines count once the batch says so (`progress`); so whatever dies,
each request has one line in the end.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from loguru import logger

from apps.openai_images.batch_file import BatchFile
from apps.server.batches.portions import Portions
from apps.server.batches.progress import BatchProgress, Leaving
from apps.server.batches.record import Batch, BatchView
from apps.server.batches.store import ERRORS, INPUT, OUTPUT
from apps.server.batches.tools import Tools
from apps.server.batches.validation import validate
from apps.server.file_store import new_file_id
from apps.server.files import BATCH_FILE_KEPT
from core.errors import InputError

OUTPUT_PURPOSE = "batch_output"


class BatchRunner:
    """Works on one batch, in the event loop.

    Args:
        turns: held while requests are handed in, so that a caller's batches come one by one.
    """

    def __init__(self, tools: Tools, batch: Batch, turns: asyncio.Lock) -> None:
        self._tools = tools
        self._turns = turns
        self._progress = BatchProgress(tools.store, batch)
        self._portions = Portions(tools, self._progress)

    @property
    def batch(self) -> Batch:
        """As it is on the disk."""
        return self._progress.batch

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
                await self._progress.save(status="failed", problems=(problem,))
        finally:
            self._portions.let_go_all()

    async def cancel(self) -> None:
        """Have no more requests tried.

        Raises:
            StorageError: the disk refuses.
        """
        await self._progress.cancel()

    def leave(self) -> None:
        """Stop at the next point from which the batch can go on."""
        self._progress.leave()

    def view(self) -> BatchView:
        """The batch as callers see it, with requests whose job has not ended."""
        return self.batch.view(*self._portions.counts())

    # -- the way of a batch ------------------------------------------------------------

    async def _validate(self) -> None:
        try:
            found = await asyncio.to_thread(validate, self._file())
        except (InputError, OSError) as error:
            problems = ({"code": "file_unreadable", "message": str(error), "line": None},)
            await self._progress.save(status="failed", problems=problems)
            return
        if found.problems:
            await self._progress.save(status="failed", problems=found.problems)
        else:
            await self._progress.save({"validating"}, status="in_progress", total=found.total)

    async def _work(self) -> None:
        if self.batch.status not in ("in_progress", "cancelling"):
            return
        progress, portions = self._progress, self._portions
        held = await self._turn()
        try:
            await portions.find()
            lines = iter(self._file())
            await asyncio.to_thread(_skip, lines, self.batch.written + portions.lines)
            exhausted = False
            while not exhausted or portions:
                progress.refuse_to_stay()
                if progress.ends_early is None and progress.is_late:
                    await progress.save(times={**self.batch.times, "expired": int(time.time())})
                if progress.ends_early is None and not exhausted and not portions.are_enough:
                    exhausted = not await portions.hand_in(lines)
                elif portions:
                    await portions.settle()
                else:
                    exhausted = not await portions.pass_over(lines)
        finally:
            if held:
                self._turns.release()

    async def _finish(self) -> None:
        """Give the caller its files."""
        batch = self.batch
        if batch.status in ("in_progress", "cancelling"):
            await self._progress.save(
                status="finalizing",
                output_file=new_file_id() if batch.output_bytes else None,
                error_file=new_file_id() if batch.error_bytes else None,
            )
        await self._progress.patiently(self._give_files)
        await self._progress.save(status=self._progress.ends_early or "completed")
        await self._progress.patiently(partial(self._tools.store.clear, self.batch))

    def _give_files(self) -> None:
        batch, tools = self.batch, self._tools
        seconds = batch.output_seconds or BATCH_FILE_KEPT
        for id, name, what in (
            (batch.output_file, OUTPUT, "output"),
            (batch.error_file, ERRORS, "error"),
        ):
            if id is not None:
                place = tools.store.place(batch, name)
                shown = f"{batch.id}_{what}.jsonl"
                if place.exists():  # else this was done before
                    tools.files.adopt(id, batch.caller, shown, OUTPUT_PURPOSE, place, seconds)

    def _file(self) -> BatchFile:
        rules = self._tools.service.rules.images
        place = self._tools.store.place(self.batch, INPUT)
        return BatchFile(place, rules, self.batch.endpoint)

    async def _turn(self) -> bool:
        """Wait until the caller's batches before this one are done; False if it ends meanwhile."""
        turn = await self._progress.or_news(self._turns.acquire(), self._progress.seconds_left)
        held = not turn.cancelled()
        if self._progress.leaving and held:
            self._turns.release()
        self._progress.refuse_to_stay()
        return held


def _skip(lines: Iterator[Any], count: int) -> None:
    for _, _ in zip(range(count), lines, strict=False):
        pass
