"""Writes the gallery of one folder: its data, and the page. Nothing but the gallery is touched."""

import hashlib
import os
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from apps.gallery.data import EACH, chunks, script, timeline_rows
from apps.gallery.items import Item
from apps.gallery.page import is_others, write_index
from apps.gallery.places import HIDDEN, INDEX, RUN, TIMELINE, chunk
from apps.gallery.reading import FolderContents, read_folder
from apps.gallery.states import read_states
from apps.gallery.timeline import sessions_of
from core.errors import InputError
from core.paths import as_text
from core.store.outputs import make_folder, remove, write_atomically

_CHUNK = re.compile(r"records-(\d{4,})\.js")


def _at_rest(item: Item) -> Item:
    """An item as it is where nothing runs: what was begun is to be done by the next run."""
    return replace(item, state="waiting") if item.state == "running" else item


class GalleryWriter:
    """Keeps the gallery of a folder up to date; what has not changed is not written again.

    Args:
        folder: an output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._versions: dict[str, str] = {}  # of files that were written, by their places

    def write(self, running: bool = False) -> FolderContents:
        """Bring the gallery up to date with the folder's record.

        Args:
            running: tasks are being worked on. The page then loads its data from files beside it,
                and looks for newer ones; else it holds all of it.

        Returns:
            What is shown.

        Raises:
            InputError: no output folder, or its index.html is somebody else's.
            LedgerError, StorageError: the record cannot be read, or the disk refuses.
        """
        contents = read_folder(self.folder)
        if is_others(self.folder / INDEX):
            raise InputError(
                f"{as_text(self.folder / INDEX)} was not made by this program and is left as it "
                "is; move it away to have the gallery there."
            )
        if not running:
            contents = replace(contents, items=[_at_rest(item) for item in contents.items])
        make_folder(self.folder / HIDDEN)
        now = time.time()
        records = chunks(self.folder, contents.items)
        timeline = self._timeline(contents, now if running else None)
        for number, text in enumerate(records):
            self._put(chunk(number), text)
        self._put(f"{HIDDEN}/{TIMELINE}", timeline)
        run = self._run(contents.items, len(records), running, now)
        title = as_text(self.folder.name)
        if running:
            self._put_page(title)
        else:
            write_index(self.folder / INDEX, title, [*records, timeline, run])
        write_atomically(self.folder / HIDDEN / RUN, run, sync=False)
        self._remove_beyond(len(records))
        return contents

    def _timeline(self, contents: FolderContents, now: float | None) -> str:
        seconds = {item.id: item.seconds for item in contents.items}
        places = {item.id: place for place, item in enumerate(contents.items)}
        sessions = sessions_of(contents.leases, seconds, read_states(self.folder), now)
        return script("draw", timeline_rows(sessions, places))

    def _run(self, items: list[Item], parts: int, running: bool, now: float) -> str:
        counts = Counter(item.state for item in items)
        return script(
            "tell",
            {
                "title": as_text(self.folder.name),
                "folder": as_text(self.folder),
                "at": round(now, 1),
                "running": running,
                "counts": dict(counts),
                "each": EACH,
                "versions": [self._versions[chunk(number)] for number in range(parts)],
                "timeline": self._versions[f"{HIDDEN}/{TIMELINE}"],
            },
        )

    def _put(self, place: str, text: str) -> None:
        version = hashlib.sha256(text.encode()).hexdigest()[:16]
        if self._versions.get(place) != version:
            write_atomically(self.folder / place, text, sync=False)
            self._versions[place] = version

    def _put_page(self, title: str) -> None:
        if INDEX not in self._versions:
            write_index(self.folder / INDEX, title)
            self._versions[INDEX] = "without data"

    def _remove_beyond(self, parts: int) -> None:
        """Remove data of an earlier page that had more."""
        for file in (self.folder / HIDDEN).iterdir():
            found = _CHUNK.fullmatch(file.name)
            if found and int(found[1]) >= parts:
                remove(file)
