"""Pictures that callers send: checked before anything decodes them, and kept by their content.

A reference of a caller never becomes a path. It is a picture itself, or a word that is looked up
among what belongs to the caller; what comes out is a file of the inbox.
"""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from uuid import uuid4

from apps.openai_images.masks import check_mask
from apps.server.errors import SERVER, ApiError, bad_value
from apps.server.safety.fetching import Fetcher
from apps.server.settings import LimitsSection
from core.errors import InputError
from core.pictures.source_images import inspect_image
from core.store.outputs import PARTIAL_PREFIX, discard, make_folder, storage_error, sync_folder
from core.validation import shown_path

FOLDER = "inbox"
GRACE = 3600.0  # seconds at most for which a picture is kept before a job must use it
AT_ONCE = 2  # pictures that are looked at side by side
MOST_REFERENCE = 300  # characters of what is no picture itself
_DATA = re.compile(r"data:([\w.+/-]*)((?:;[\w.+=-]+)*),", re.ASCII)
_OF_JOB = re.compile(r"(job_[0-9a-z]{1,64})/(\d{1,9})(?:/sources/(\d{1,3}))?", re.ASCII)
_FILE = re.compile(r"file-[0-9a-zA-Z]{1,64}", re.ASCII)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_STORED = re.compile(r"[0-9a-f]{64}", re.ASCII)
Lookup = Callable[[str, str], Awaitable[Path | None]]
OfJob = Callable[[str, str, int, int | None], Awaitable[Path | None]]


class Inbox:
    """Pictures of all callers, in one folder, each once.

    Args:
        folder: the daemon's; pictures lie below it.
        limits: of a picture and of all of them.
        file: the file of a caller by its name in /v1/files; None where there is none.
        of_job: the picture of a caller's job, by the job's name and position, or the n-th of
            those that this task of it reads; None as before.
        fetcher: for addresses; None where they are not allowed.
        grace: seconds for which a picture is kept before a job must use it.
    """

    def __init__(
        self,
        folder: Path,
        limits: LimitsSection,
        file: Lookup | None = None,
        of_job: OfJob | None = None,
        fetcher: Fetcher | None = None,
        grace: float = GRACE,
    ) -> None:
        self.folder = folder.absolute() / FOLDER
        self._limits = limits
        self._most = int(limits.picture_mib * 1024**2)
        self._file = file
        self._of_job = of_job
        self._fetcher = fetcher
        self._grace = grace
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._changes = threading.Lock()
        make_folder(self.folder)
        self._size = 0
        self._senders: dict[str, str] = {}  # of pictures by name, since the start
        self._sent: dict[str, int] = {}  # bytes that are kept, by sender
        for left in self.folder.iterdir():
            if left.name.startswith(PARTIAL_PREFIX):
                discard(left)
            else:
                self._size += left.stat().st_size

    async def keep(self, caller: str, data: bytes, param: str) -> str:
        """Check a picture and store it; returns its path.

        Args:
            param: the field that it came in, for errors.

        Raises:
            ApiError: 400 for what is no picture, or too large a one; 429 where the caller has
                sent as much as one may; 507 where there is no room.
        """
        self._check_size(len(data), param)
        async with self._turns:
            return await asyncio.to_thread(self._keep, caller, data, param)

    async def resolve(self, caller: str, reference: str, param: str) -> str:
        """The path of a picture that a caller refers to.

        Args:
            reference: a data URL, base64, `file-…` of /v1/files, `job_…/0` for a picture of the
                caller's own job, `job_…/0/sources/0` for one that its task read, or an https
                address where these are allowed.

        Raises:
            ApiError: 400: none of these, or not what it says it is.
        """
        if found := _DATA.match(reference):
            if not found[2].lower().endswith(";base64"):
                raise bad_value(
                    param, f"{param}: a data URL must be in base64.", "invalid_image_url"
                )
            return await self._keep_text(caller, reference[found.end() :], param)
        if _ADDRESS.match(reference):
            if self._fetcher is None:
                raise bad_value(
                    param,
                    f"{param}: this server fetches no pictures; send a data URL or a file id.",
                    "invalid_image_url",
                )
            return await self.keep(caller, await self._fetcher.fetch(reference, param), param)
        if len(reference) <= MOST_REFERENCE and (path := await self._own(caller, reference)):
            return await self._keep_file(caller, path, param)
        if _FILE.fullmatch(reference) or _OF_JOB.fullmatch(reference):
            raise bad_value(param, f"{param}: there is no {reference}.", "image_not_found")
        return await self._keep_text(caller, reference, param)

    async def mask(self, caller: str, given: bytes | str, picture: str) -> str:
        """The path of a mask, which comes as pictures do.

        Args:
            picture: the path of the one that it lies on.

        Raises:
            ApiError: as `keep` and `resolve`; 400 for one that does not fit the picture.
        """
        path = await self.given(caller, given, "mask")
        async with self._turns:
            await asyncio.to_thread(check_mask, path, picture)
        return path

    async def given(self, caller: str, picture: bytes | str, param: str) -> str:
        """The path of a picture that came as bytes, or as a reference; see `keep` and `resolve`."""
        if isinstance(picture, bytes):
            return await self.keep(caller, picture, param)
        return await self.resolve(caller, picture, param)

    def sweep(self, tasks: Callable[[], Iterable[str]], now: float | None = None) -> int:
        """Remove what no kept job uses; returns how many pictures. It waits for the disk.

        Args:
            tasks: gives texts in which paths of used pictures stand; not asked if nothing is old.
        """
        before = (time.time() if now is None else now) - self._grace
        old = {file.name for file in self._stored() if _time_of(file) < before}
        if not old:
            return 0
        for text in tasks():
            old.difference_update(_STORED.findall(text))
        removed = 0
        for name in old:
            with self._changes:  # it may have been sent again meanwhile
                file = self.folder / name
                if file.exists() and _time_of(file) < before:
                    size = file.stat().st_size
                    discard(file)
                    self._count(self._senders.pop(name, None), -size)
                    removed += 1
        return removed

    # -- references ------------------------------------------------------------

    async def _own(self, caller: str, reference: str) -> Path | None:
        if _FILE.fullmatch(reference) and self._file is not None:
            return await self._file(caller, reference)
        job = _OF_JOB.fullmatch(reference)
        if job and self._of_job is not None:
            source = None if job[3] is None else int(job[3])
            return await self._of_job(caller, job[1], int(job[2]), source)
        return None

    async def _keep_file(self, caller: str, path: Path, param: str) -> str:
        def read() -> bytes:
            try:
                self._check_size(path.stat().st_size, param)
                return path.read_bytes()
            except OSError:
                raise bad_value(param, f"{param}: it is gone.", "image_not_found") from None

        return await self.keep(caller, await asyncio.to_thread(read), param)

    async def _keep_text(self, caller: str, text: str, param: str) -> str:
        self._check_size(len(text) // 4 * 3 - 2, param)
        try:
            data = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise bad_value(
                param,
                f"{param}: expected a data URL, base64, a file id (file-…) or a picture of a job "
                "(job_…/0).",
                "invalid_image_url",
            ) from None
        return await self.keep(caller, data, param)

    # -- the folder --------------------------------------------------------------

    def _check_size(self, size: int, param: str) -> None:
        if size > self._most:
            raise bad_value(
                param,
                f"{param}: the picture is larger than {self._limits.picture_mib:g} MiB.",
                "image_too_large",
            )

    def _keep(self, caller: str, data: bytes, param: str) -> str:
        name = hashlib.sha256(data).hexdigest()
        file = self.folder / name
        with self._changes:
            if file.exists():  # whoever sent it first; nobody can read it back
                file.touch()
                return str(file)
            self._check_room(caller, len(data))
            self._count(caller, len(data))
        # Looked at under a name of its own: two callers may send the same picture at once.
        waiting = self.folder / f"{PARTIAL_PREFIX}{uuid4().hex}"
        kept = False
        try:
            with waiting.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            self._inspect(waiting, param)
            with self._changes:
                kept = not file.exists()
                os.replace(waiting, file)
                if kept:
                    self._senders[name] = caller
            sync_folder(self.folder)
        except OSError as error:
            raise storage_error(error, waiting) from None
        finally:
            discard(waiting)
            if not kept:
                with self._changes:
                    self._count(caller, -len(data))
        return str(file)

    def _check_room(self, caller: str, size: int) -> None:
        if self._sent.get(caller, 0) + size > self._limits.inbox_gib_per_key * 1024**3:
            raise ApiError(
                429,
                f"You have sent {self._limits.inbox_gib_per_key:g} GiB of pictures that are kept "
                "for your jobs, which is the most. Come again later.",
                "storage_quota_exceeded",
                type="insufficient_quota",
            )
        if self._size + size > self._limits.inbox_gib * 1024**3:
            raise ApiError(
                507,
                "The server has no room for more pictures now.",
                "insufficient_storage",
                type=SERVER,
            )

    def _count(self, sender: str | None, size: int) -> None:
        self._size += size
        if sender is not None:
            self._sent[sender] = self._sent.get(sender, 0) + size
            if not self._sent[sender]:
                del self._sent[sender]

    def _inspect(self, file: Path, param: str) -> None:
        try:
            found = inspect_image(file, param)
        except InputError as error:
            text = str(error)
            for path in (shown_path(str(file)), str(file)):
                text = text.replace(path, "the picture")
            raise bad_value(param, text, "invalid_image") from None
        most = self._limits.picture_megapixels
        if found.width * found.height > most * 1e6:
            raise bad_value(
                param, f"{param}: the picture has more than {most:g} megapixels.", "image_too_large"
            )

    def _stored(self) -> Iterator[Path]:
        return (file for file in self.folder.iterdir() if _STORED.fullmatch(file.name))


def _time_of(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
