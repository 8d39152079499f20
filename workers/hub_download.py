"""Fetches what a model is loaded from into the cache of Hugging Face's libraries.

Which files are needed, whether the cache has them, and how far they are: `workers.hub_transfer`
brings those that are missing.
"""

import glob
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoFile

from core.byte_sizes import shown_bytes
from core.errors import ModelLoadError
from core.index_files import PIPELINE_INDEX
from workers.hub import HubModel, Log, ask_for, load_from_hub
from workers.hub_files import (
    Given,
    libraries_of,
    parts_given,
    pipeline_files,
    shards_of,
    transformers_files,
)
from workers.hub_transfer import File, Transfer, file_of, without_doubles

LOOK = 0.25  # seconds between looks at the disk
_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNSAFE_NAME = re.compile(r"(^|/)\.\.?(/|$)|^/|//|[\\\0]")


@dataclass(frozen=True)
class Progress:
    """Bytes on the disk of those that are needed. `hashed` only shows that something goes on."""

    done: int
    total: int
    hashed: int = 0


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
        self._folder = cache / folder
        self._transfer = Transfer(model, self._folder, cache / ".locks" / folder, log, sleep)

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
        files = [file_of(listed[name]) for name in needed]
        missing = [file for file in files if not (snapshot / file.name).exists()]
        self._check_room(missing)
        with self._watched(files, snapshot):
            self._transfer.run(missing, commit)
            # Has the library put the files into their places, and fetch what is left to it.
            snapshot_download(
                self._model.name, revision=commit, allow_patterns=[glob.escape(n) for n in needed]
            )

    def _check_room(self, missing: Sequence[File]) -> None:
        there = self._transfer.blobs()
        doubles_once = without_doubles(missing)
        needed = sum(max(0, f.size - there.get(f.etag, 0)) for f in doubles_once)
        place = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise ModelLoadError(
                f"{self._model.name}: {shown_bytes(needed)} of it are to be downloaded, but the "
                f"models' cache ({constants.HF_HUB_CACHE}) has {shown_bytes(free)} free. Make "
                "room, have HF_HOME name a folder with more, or give the model's folder."
            )

    # -- progress ------------------------------------------------------------------------------

    @contextmanager
    def _watched(self, files: Sequence[File], snapshot: Path) -> Iterator[None]:
        """Tell of what comes to the disk meanwhile."""
        total = sum(file.size for file in files)
        over = threading.Event()

        def look() -> Progress:
            blobs = self._transfer.blobs()
            done = sum(
                f.size if (snapshot / f.name).exists() else min(blobs.get(f.etag, 0), f.size)
                for f in files
            )
            return Progress(done, total, self._transfer.hashed)

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


def _json_of(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ModelLoadError(f"its {file.name} holds no JSON object.")
    return content
