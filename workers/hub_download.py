"""Fetches what a model is loaded from into the cache of Hugging Face's libraries.

Their own downloads begin each file anew; here a file goes on where an earlier run stopped in the
middle of it. Files are written as the libraries name them, `blobs/<etag>` with `.incomplete` while
they grow, under the libraries' own locks, so that nobody on this machine fetches one twice.
"""

import glob
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_session,
    hf_hub_download,
    hf_hub_url,
    hf_raise_for_status,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._fixes import WeakFileLock
from huggingface_hub.utils._headers import build_hf_headers

from core.byte_sizes import shown_bytes
from core.errors import ModelLoadError
from core.index_files import PIPELINE_INDEX
from workers.hub import HubModel, Log, ask_for, load_from_hub, patiently
from workers.hub_files import (
    Given,
    libraries_of,
    parts_given,
    pipeline_files,
    shards_of,
    transformers_files,
)

AT_ONCE = 8  # files
HASHED_AT_ONCE = 16 * 1024**2  # bytes
LOOK = 0.25  # seconds between looks at the disk
SAID_ALREADY = 5.0  # seconds in which files that fail alike are one line of the log
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAFE_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_UNSAFE_NAME = re.compile(r"(^|/)\.\.?(/|$)|^/|//|[\\\0]")


@dataclass(frozen=True)
class Progress:
    """Bytes on the disk of those that are needed. `hashed` only shows that something goes on."""

    done: int
    total: int
    hashed: int = 0


@dataclass(frozen=True)
class _File:
    """A file of the repository that is needed."""

    name: str
    size: int
    etag: str
    by_library: bool  # it has a way of its own, Hugging Face's xet client


class Download:
    """One model's way into the cache.

    Args:
        on_progress: told, from any thread, what is on the disk whenever that changed.
        sleep: waits between two tries, in any thread.
        variant: of the weights, such as fp16.
        given: whose weights are not needed.
    """

    def __init__(
        self,
        model: HubModel,
        log: Log,
        on_progress: Callable[[Progress], None],
        sleep: Callable[[float], None],
        variant: str | None = None,
        given: Given = "nothing",
    ) -> None:
        self._model = model
        self._variant = variant
        self._given = given
        self._log = log
        self._on_progress = on_progress
        self._sleep = sleep
        self._commit: str | None = None  # what the hub means by the revision now
        cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
        folder = "--".join(["models", *model.name.split("/")])
        self._folder, self._locks = cache / folder, cache / ".locks" / folder
        self._hashed = 0
        self._ended = threading.Event()  # of the transfers: one of them cannot go on
        self._said: dict[str, float] = {}  # lines of the log, and when

    def run(self) -> Path:
        """The folder with everything that loading the model reads.

        Raises:
            ModelLoadError: it cannot be had, and what to do about it.
        """
        return load_from_hub(self._model, self._bring, self._log, self._ask, self._sleep)

    def _ask(self, model: HubModel) -> None:
        self._commit = None
        self._commit = ask_for(model)

    def _bring(self) -> Path:
        if is_offline_mode():
            return self._cached()
        if self._commit is None or not _COMMIT.fullmatch(self._commit):
            raise ModelLoadError(
                f"{self._model.name}: {constants.ENDPOINT} does not say which commit "
                f"{self._model.revision or 'main'} is, as a model hub does (HF_ENDPOINT)."
            )
        folder = self._folder / "snapshots" / self._commit
        names = self._listed_before(self._commit)
        if names is None or any(not (folder / n).exists() for n in self._needed(names)):
            self._fetch(self._commit)
        self._note_revision(self._commit)
        return folder

    # -- what is there -----------------------------------------------------------------------

    def _listed_before(self, commit: str) -> list[str] | None:
        """All names of that commit, if an earlier download kept them."""
        try:
            files = get_cached_repo_tree(self._model.name, revision=commit)
        except CachedRepoTreeNotFoundError:
            return None
        return [file.path for file in files if not _UNSAFE_NAME.search(file.path)]

    def _cached(self) -> Path:
        """The cached snapshot that the revision named last, found without the hub.

        Raises:
            LocalEntryNotFoundError: it is not there, or not whole.
        """
        model = self._model
        index = try_to_load_from_cache(model.name, model.index_file, revision=model.revision)
        if not isinstance(index, str):
            raise LocalEntryNotFoundError(f"{model.name} is not in the cache.")
        folder = Path(index).parent
        names = self._listed_before(folder.name)
        needed = self._needed(names) if names is not None else self._expected(folder)
        missing = [name for name in needed if not (folder / name).exists()]
        if missing:
            raise LocalEntryNotFoundError(f"{model.name} lacks {missing[0]} in the cache.")
        return folder

    def _expected(self, folder: Path) -> list[str]:
        """Names that a snapshot without its list of files has to hold at least."""
        model = self._model
        try:
            index = _json_of(folder / model.index_file)
        except ModelLoadError as error:
            raise ModelLoadError(f"{model.name}: {error}") from None
        parts = [*libraries_of(index)] if model.index_file == PIPELINE_INDEX else ["."]
        expected = [model.index_file]
        for part in sorted({*parts} - parts_given(parts, self._given)):
            place = folder / part if (folder / part).is_dir() else folder  # some lie in the root
            inside = place.relative_to(folder)
            indexes = place.glob("*.safetensors.index*.json")
            shards = {shard for i in indexes for shard in shards_of(_json_of(i))}
            expected += [str(inside / shard) for shard in shards]
            if (place / "config.json").exists() and not any(place.glob("*.safetensors")):
                expected.append(str(inside / "model.safetensors"))  # or a name like it
        return expected

    def _needed(self, names: Sequence[str]) -> list[str]:
        """
        Raises:
            ModelLoadError: the repository has not what it takes.
        """
        try:
            if self._model.index_file == PIPELINE_INDEX:
                index = self._read(PIPELINE_INDEX)
                return pipeline_files(names, index, self._variant, self._given)
            return transformers_files(names, self._read, self._variant)
        except ModelLoadError as error:
            raise ModelLoadError(f"{self._model.name}: {error}") from None

    def _read(self, name: str) -> Mapping[str, Any]:
        """A small JSON file of the repository, fetched if it is not there."""
        file = hf_hub_download(
            self._model.name, name, revision=self._commit or self._model.revision
        )
        return _json_of(Path(file))

    # -- fetching ------------------------------------------------------------------------------

    def _fetch(self, commit: str) -> None:
        listed = {
            entry.path: entry
            for entry in HfApi().list_repo_tree(self._model.name, recursive=True, revision=commit)
            if isinstance(entry, RepoFile) and not _UNSAFE_NAME.search(entry.path)
        }
        needed = self._needed(list(listed))
        snapshot = self._folder / "snapshots" / commit
        files = [_file_of(listed[name]) for name in needed]
        missing = [file for file in files if not (snapshot / file.name).exists()]
        self._check_room(missing)
        with self._watched(files, snapshot):
            self._transfer(missing, commit)
            # Has the library put the files into their places, and fetch what is left to it.
            snapshot_download(
                self._model.name, revision=commit, allow_patterns=[glob.escape(n) for n in needed]
            )

    def _check_room(self, missing: Sequence[_File]) -> None:
        there = self._blobs()
        doubles_once = _without_doubles(missing)
        needed = sum(max(0, f.size - there.get(f.etag, 0)) for f in doubles_once)
        place = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise ModelLoadError(
                f"{self._model.name}: {shown_bytes(needed)} of it are to be downloaded, but the "
                f"models' cache ({constants.HF_HUB_CACHE}) has {shown_bytes(free)} free. Make "
                "room, have HF_HOME name a folder with more, or give the model's folder."
            )

    def _transfer(self, files: Sequence[_File], commit: str) -> None:
        """Transfer files side by side; the first one that cannot be had ends the others."""
        ours = [f for f in _without_doubles(files) if f.size > 0 and not f.by_library]
        if not ours:
            return
        (self._folder / "blobs").mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(parents=True, exist_ok=True)
        self._ended.clear()
        failures: list[Exception] = []

        def bring(file: _File) -> None:
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

    def _transfer_one(self, file: _File, commit: str) -> None:
        before = self._blobs().get(file.etag, 0)

        def got_on() -> bool:
            nonlocal before
            now = self._blobs().get(file.etag, 0)
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
    def _locked(self, file: _File) -> Iterator[None]:
        """Hold a file's lock on this machine; whoever has it meanwhile may finish the file."""
        with ExitStack() as stack:
            while True:
                self._stop_if_ended()
                with suppress(TimeoutError):
                    lock = self._locks / f"{file.etag}.lock"
                    stack.enter_context(WeakFileLock(lock, timeout=2 * LOOK))
                    break
            yield

    def _stop_if_ended(self) -> None:
        if self._ended.is_set():
            raise ModelLoadError("Another file of it could not be had.")

    def _go_on(self, file: _File, commit: str) -> None:
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

    def _stream(self, file: _File, commit: str, partial: Path, begun: int) -> None:
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

    def _is_right(self, partial: Path, file: _File) -> bool:
        """Whether a file that came in several pieces is what the hub has, by size and checksum."""
        if len(file.etag) != 64:
            return True
        digest = hashlib.sha256()
        with partial.open("rb") as stream:
            while chunk := stream.read(HASHED_AT_ONCE):
                digest.update(chunk)
                self._hashed += len(chunk)
        return digest.hexdigest() == file.etag

    # -- progress ------------------------------------------------------------------------------

    def _partial(self, file: _File) -> Path:
        return self._folder / "blobs" / f"{file.etag}.incomplete"

    def _blobs(self) -> dict[str, int]:
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

    @contextmanager
    def _watched(self, files: Sequence[_File], snapshot: Path) -> Iterator[None]:
        """Tell of what comes to the disk meanwhile."""
        total = sum(file.size for file in files)
        over = threading.Event()

        def look() -> Progress:
            blobs = self._blobs()
            done = sum(
                f.size if (snapshot / f.name).exists() else min(blobs.get(f.etag, 0), f.size)
                for f in files
            )
            return Progress(done, total, self._hashed)

        def watch() -> None:
            told = look()
            self._on_progress(told)
            while not over.wait(LOOK):
                now = look()
                if now != told:
                    told = now
                    self._on_progress(told)

        watcher = threading.Thread(target=watch, name="progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        self._on_progress(look())

    def _note_revision(self, commit: str) -> None:
        """Note which commit the revision is, for whoever loads it without the hub."""
        name = self._model.revision or constants.DEFAULT_REVISION
        if name == commit or _UNSAFE_NAME.search(name):
            return
        ref = self._folder / "refs" / name
        with suppress(OSError):  # a cache that others may only read
            if ref.is_file() and ref.read_text("utf-8") == commit:
                return
            ref.parent.mkdir(parents=True, exist_ok=True)
            new = ref.with_name(f"{ref.name}.{os.getpid()}.incomplete")
            new.write_text(commit, "utf-8")
            os.replace(new, ref)


def _file_of(entry: RepoFile) -> _File:
    large = entry.lfs is not None
    etag = entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
    size = max(0, entry.lfs.size if entry.lfs is not None else entry.size)
    too_large = size > constants.MAX_HTTP_DOWNLOAD_SIZE
    wished = constants.HF_XET_HIGH_PERFORMANCE and not constants.HF_HUB_DISABLE_XET
    by_library = entry.xet_hash is not None and large and (too_large or wished)
    # An etag becomes the name of a file here.
    return _File(entry.path, size, str(etag), by_library or not _SAFE_ETAG.fullmatch(str(etag)))


def _without_doubles(files: Sequence[_File]) -> list[_File]:
    """One file of each content: equal files are one file in the cache."""
    return list({file.etag: file for file in files}.values())


def _json_of(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ModelLoadError(f"its {file.name} holds no JSON object.")
    return content
