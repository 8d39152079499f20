"""Transfers files of the hub into the cache of Hugging Face's libraries.

Their own downloads begin each file anew; here a file goes on where an earlier run stopped in the
middle of it. Files are written as the libraries name them, `blobs/<etag>` with `.incomplete` while
they grow, under the libraries' own locks, so that nobody on this machine fetches one twice.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import (
    constants,
    get_session,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._fixes import WeakFileLock
from huggingface_hub.utils._headers import build_hf_headers

from core.errors import ModelLoadError
from workers.hub import HubModel, Log, patiently

AT_ONCE = 8  # files
HASHED_AT_ONCE = 16 * 1024**2  # bytes
LOCK_TIMEOUT = 0.5  # seconds between looks whether the transfers have ended
SAID_ALREADY = 5.0  # seconds in which files that fail alike are one line of the log
_SAFE_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A file of the repository that is needed."""

    name: str
    size: int
    etag: str
    by_library: bool  # it has a way of its own, Hugging Face's xet client


def file_of(entry: RepoFile) -> File:
    large = entry.lfs is not None
    etag = entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
    size = max(0, entry.lfs.size if entry.lfs is not None else entry.size)
    too_large = size > constants.MAX_HTTP_DOWNLOAD_SIZE
    wished = constants.HF_XET_HIGH_PERFORMANCE and not constants.HF_HUB_DISABLE_XET
    by_library = entry.xet_hash is not None and large and (too_large or wished)
    # An etag becomes the name of a file here.
    return File(entry.path, size, str(etag), by_library or not _SAFE_ETAG.fullmatch(str(etag)))


def without_doubles(files: Sequence[File]) -> list[File]:
    """One file of each content: equal files are one file in the cache."""
    return list({file.etag: file for file in files}.values())


class Transfer:
    """Brings files of one model into its folder of the cache.

    Args:
        folder: of the model in the cache.
        locks: the folder of its files' locks.
        sleep: waits between two tries, in any thread.

    Attributes:
        hashed: bytes that were checked so far.
    """

    def __init__(
        self,
        model: HubModel,
        folder: Path,
        locks: Path,
        log: Log,
        sleep: Callable[[float], None],
    ) -> None:
        self.hashed = 0
        self._model = model
        self._folder, self._locks = folder, locks
        self._log = log
        self._sleep = sleep
        self._ended = threading.Event()  # one of the files cannot be had
        self._said: dict[str, float] = {}  # lines of the log, and when

    def blobs(self) -> dict[str, int]:
        """Bytes on the disk by etag, of files that grow, too, whoever is fetching them."""
        sizes: dict[str, int] = {}
        with suppress(OSError), os.scandir(self._folder / "blobs") as entries:
            for entry in entries:
                with suppress(OSError):  # it has just been given its name
                    found = entry.stat()
                    # Where the library has xet write, a file has its size before its bytes.
                    size = min(found.st_size, found.st_blocks * 512)
                    etag, _, grows = entry.name.partition(".")
                    sizes[etag] = max(sizes.get(etag, 0), size if grows else found.st_size)
        return sizes

    def run(self, files: Sequence[File], commit: str) -> None:
        """Transfer files side by side; the first one that cannot be had ends the others."""
        ours = [f for f in without_doubles(files) if f.size > 0 and not f.by_library]
        if not ours:
            return
        (self._folder / "blobs").mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(parents=True, exist_ok=True)
        self._ended.clear()
        failures: list[Exception] = []

        def bring(file: File) -> None:
            if self._ended.is_set():
                return
            try:
                self._transfer_one(file, commit)
            except Exception as error:
                failures.append(error)
                self._ended.set()

        with ThreadPoolExecutor(AT_ONCE) as threads:  # the largest first: it takes longest
            list(threads.map(bring, sorted(ours, key=lambda file: -file.size)))
        if failures:
            raise failures[0]

    def _transfer_one(self, file: File, commit: str) -> None:
        before = self.blobs().get(file.etag, 0)

        def got_on() -> bool:
            nonlocal before
            now = self.blobs().get(file.etag, 0)
            more, before = now > before, now
            return more

        with self._locked(file):
            patiently(
                self._model, lambda: self._go_on(file, commit), self._log_once, self._pause, got_on
            )

    def _pause(self, seconds: float) -> None:
        self._sleep(seconds)
        self._stop_if_ended()

    def _log_once(self, level: str, text: str) -> None:
        now = time.monotonic()
        again = now - self._said.get(text, -SAID_ALREADY) < SAID_ALREADY
        self._said[text] = now
        self._log("DEBUG" if again else level, text)

    @contextmanager
    def _locked(self, file: File) -> Iterator[None]:
        """Hold a file's lock on this machine; whoever has it meanwhile may finish the file."""
        with ExitStack() as stack:
            while True:
                self._stop_if_ended()
                with suppress(TimeoutError):
                    lock = self._locks / f"{file.etag}.lock"
                    stack.enter_context(WeakFileLock(lock, timeout=LOCK_TIMEOUT))
                    break
            yield

    def _stop_if_ended(self) -> None:
        if self._ended.is_set():
            raise ModelLoadError("Another file of it could not be had.")

    def _go_on(self, file: File, commit: str) -> None:
        """Fetch the rest of a file; does nothing if it is there."""
        blob = self._folder / "blobs" / file.etag
        if blob.exists():
            return
        partial = self._partial(file)
        begun = partial.stat().st_size if partial.exists() else 0
        if begun > file.size:
            partial.unlink()
            begun = 0
        if begun < file.size:
            self._stream(file, commit, partial, begun)
        if begun and not self._is_right(partial, file):
            partial.unlink()
            raise httpx2.RemoteProtocolError(f"{file.name} is not what its checksum says")
        os.replace(partial, blob)

    def _stream(self, file: File, commit: str, partial: Path, begun: int) -> None:
        url = hf_hub_url(self._model.name, file.name, revision=commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if begun:
            headers["Range"] = f"bytes={begun}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # seconds without a byte
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code == 416:  # what is there is no beginning of what the hub has
                partial.unlink()
                raise httpx2.RemoteProtocolError(f"{file.name} has another size than before")
            hf_raise_for_status(response)
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
            if begun and not (response.status_code == 206 and goes_on):
                begun = 0  # from the start again: this server does not do otherwise
            with partial.open("ab" if begun else "wb") as stream:
                for chunk in response.iter_bytes():  # as they come: a kill loses little
                    self._stop_if_ended()
                    begun += len(chunk)
                    if begun > file.size:
                        break
                    stream.write(chunk)
        if begun > file.size:
            partial.unlink()
            raise httpx2.RemoteProtocolError(f"{file.name} is longer than the hub said")
        if begun < file.size:
            raise httpx2.RemoteProtocolError(f"{file.name} ended early")

    def _is_right(self, partial: Path, file: File) -> bool:
        """Whether a file that came in several pieces is what the hub has, by size and checksum."""
        if len(file.etag) != 64:
            return True
        digest = hashlib.sha256()
        with partial.open("rb") as stream:
            while chunk := stream.read(HASHED_AT_ONCE):
                digest.update(chunk)
                self.hashed += len(chunk)
        return digest.hexdigest() == file.etag

    def _partial(self, file: File) -> Path:
        return self._folder / "blobs" / f"{file.etag}.incomplete"
