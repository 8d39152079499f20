"""Writes the edits of a run once more, as a benchmark's own scorer wants to find them.

The folder lies beside the results. Where a file has the right format it is linked, or copied where
the disk has no links: nothing is compressed again. Else it is converted. Each file appears whole or
not at all, and what is there and unchanged stays, so a run that was killed goes on here, too.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loguru import logger
from PIL import Image

from apps.edit_benchmark.layout import OfficialLayout, of_model, official_layout
from apps.edit_benchmark.official_results import judged_by, statistic_of
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pair_result import PairResult
from apps.edit_benchmark.records import Record
from apps.edit_benchmark.summary import OtherJudge
from core.errors import InputError
from core.names import bounded, cleaned
from core.paths import as_text, on_disk
from core.pictures.source_images import read_image
from core.store.outputs import (
    JPEG_QUALITY,
    JPEG_SUFFIXES,
    PARTIAL_PREFIX,
    make_folder,
    remove,
    storage_error,
    write_atomically,
)

MARK = "layout.json"  # tells whose folder it is
SCORES = "scores_of_this_run"  # a folder of its own: official scorers would take them for their own
THREADS = 4


@dataclass(frozen=True)
class LayoutFolder:
    """The folder of one run's edits in one layout.

    Args:
        results: the run's folder.
        name: of the layout.
    """

    results: Path
    name: str

    @property
    def folder(self) -> Path:
        """What the scripts are given."""
        return self.results.with_name(f"{self.results.name}.{self.name}")

    @property
    def model(self) -> str:
        """What the scripts call the run: its name, as far as their command lines take it."""
        return bounded(cleaned(as_text(self.results.name), "-._", "-"), 100)

    @property
    def layout(self) -> OfficialLayout:
        return official_layout(self.name)

    @property
    def command(self) -> str:
        """How the benchmark's scorer is called."""
        return self.layout.command(as_text(self.folder), self.model)

    def fits(self, pairs: Sequence[Pair]) -> bool:
        """Whether the pairs are of the benchmark whose scorer reads the layout."""
        return all(pair.data_set == self.name for pair in pairs)

    def check(self, pairs: Sequence[Pair]) -> None:
        """Refuse what could not be written, before anything is done; warn of other data.

        Raises:
            InputError: the layout has one name for two pairs, or another program's folder lies in
                the place.
        """
        if not self.fits(pairs):
            forms = ", ".join(dict.fromkeys(pair.data_set for pair in pairs))
            logger.warning(
                f"--layout {self.name}: the data is not of that benchmark (it was read as "
                f"{forms}). Its edits are written under such names, but the benchmark's scorer "
                "knows only its own pairs."
            )
        taken: dict[PurePosixPath, str] = {}
        for pair in pairs:
            place = self.layout.place(pair)
            other = taken.setdefault(place, pair.name)
            if other != pair.name:
                raise InputError(
                    f"--layout {self.name}: pairs {other!r} and {pair.name!r} would both be "
                    f"{of_model(place, self.model)}{self.layout.suffixes_of(pair)[0]}; this layout "
                    "has one name for both."
                )
        if self.folder.exists() and any(self.folder.iterdir()) and not self._is_ours():
            raise InputError(
                f"--layout {self.name}: {as_text(self.folder)} was not written by this program; "
                "move it away, or give the run another --name."
            )

    def write(
        self,
        results: Sequence[PairResult],
        records: Sequence[Record],
        others: Sequence[OtherJudge] = (),
    ) -> int:
        """Write all edits, and the scores as the benchmark's statistic reads them.

        Args:
            others: judges of the same edits, as `official_table` takes them.

        Returns:
            How many edits there are.

        Raises:
            StorageError: the disk refuses.
        """
        make_folder(self.folder)
        mark = {"layout": self.name, "results": as_text(self.results.name)}
        write_atomically(self.folder / MARK, json.dumps(mark) + "\n")
        with ThreadPoolExecutor(THREADS) as threads:
            written = list(threads.map(self._write_pair, results))
        self._write_scores([result.pair for result in results], records, others)
        return sum(written)

    def _write_pair(self, result: PairResult) -> bool:
        """Write one edit, and its source where the scripts want it; False if there is no edit."""
        home = self.folder / on_disk(str(self.layout.home(self.model)))
        place = of_model(self.layout.place(result.pair), self.model)
        stem = home / on_disk(str(place))
        edit = Path(on_disk(result.edit.output_path or ""))
        there = result.edit.success and edit.is_file()
        suffix = edit.suffix.lower()
        suffixes = self.layout.suffixes_of(result.pair)
        suffix = suffix if suffix in suffixes else suffixes[0]
        target = stem.with_name(f"{stem.name}{suffix}")
        for other in suffixes:  # what an earlier run left must not be found first
            old = stem.with_name(f"{stem.name}{other}")
            if old != target or not there:
                remove(old)
        if there:
            _bring(edit, target)
        source = self.layout.source_place(result.pair)
        if there and source is not None and result.pair.source_images:
            _bring(Path(on_disk(result.pair.source_images[0])), home / on_disk(str(source)))
        return there

    def _write_scores(
        self, pairs: Sequence[Pair], records: Sequence[Record], others: Sequence[OtherJudge]
    ) -> None:
        statistic = statistic_of(pairs)
        if statistic is None:
            return
        judged = judged_by(statistic, pairs, records, others)
        files = statistic.score_files(self.model, judged) if any(o.scores for o in judged) else {}
        for place, content in files.items():
            file = self.folder / SCORES / on_disk(str(place))
            make_folder(file.parent)
            write_atomically(file, content)

    def _is_ours(self) -> bool:
        try:
            mark = json.loads((self.folder / MARK).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(mark, dict) and mark.get("layout") == self.name


def tell_layout(folder: LayoutFolder, edits: int, pairs: Sequence[Pair]) -> Iterator[str]:
    """Lines about what was written, and how it is scored where the data is of the benchmark."""
    yield f"{edits} of {len(pairs)} edits as {folder.name} names them: {as_text(folder.folder)}"
    if folder.fits(pairs):
        yield f"official scorer: {folder.command}"


def _bring(picture: Path, target: Path) -> None:
    """Have a picture under another name, in the format of that name.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        if _is_same(picture, target):
            return
        make_folder(target.parent)
        partial = target.with_name(f"{PARTIAL_PREFIX}{target.name}")
        partial.unlink(missing_ok=True)
        if _format(picture) == _format(target):
            _link_or_copy(picture, partial)
        elif not _convert(picture, partial, target):
            return
        os.replace(partial, target)
    except OSError as error:
        raise storage_error(error, target) from None


def _is_same(picture: Path, target: Path) -> bool:
    """Whether `target` was made of the picture as it is: copies keep the time of its change."""
    if not target.is_file():
        return False
    if target.samefile(picture):
        return True
    return target.stat().st_mtime_ns == picture.stat().st_mtime_ns


def _format(file: Path) -> str:
    suffix = file.suffix.lower()
    return JPEG_SUFFIXES[0] if suffix in JPEG_SUFFIXES else suffix


def _link_or_copy(picture: Path, partial: Path) -> None:
    try:
        os.link(picture, partial)
    except OSError:  # another disk, or one without links
        shutil.copy2(picture, partial)


def _convert(picture: Path, partial: Path, target: Path) -> bool:
    """Write the picture in the format of `target`; False, and a line, if it cannot be read."""
    try:
        image: Image.Image = read_image(picture)
    except InputError as error:
        logger.error(f"{as_text(target.name)} is left out: {error}")
        return False
    if _format(target) == JPEG_SUFFIXES[0]:
        image.save(partial, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(partial, "PNG")
    taken = picture.stat()
    os.utime(partial, ns=(taken.st_atime_ns, taken.st_mtime_ns))
    return True
