"""The benchmark's input: pictures with instructions, in three forms told apart by what is there.

- a JSON file as RE-Edit ships it: a list of objects with `subset`, `edit_instruction_en`, and
  the picture as `src_img_b64` or `original_image_path`;
- a Hugging Face imagefolder: `metadata.jsonl` with `input_file_name`, `instruction`, `category`;
- a folder as GEdit-Bench lays it out: `fullset/<task type>/<language>/<key>_SRCIMG.png`, with the
  dataset's columns `task_type`, `instruction_language`, `key`, `instruction` and
  `Intersection_exist` in `metadata.jsonl`.

An input that cannot be read at all raises; a pair that cannot be used keeps its place as an
`InputError`, so that it ends as a failed record and not as a missing one.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.categories import category_folder
from core.errors import InputError
from core.names import MAX_BYTES, cut
from core.paths import as_text, readings
from core.settings import PROJECT_DIR
from core.store.outputs import output_key
from core.validation import shown


@dataclass(frozen=True)
class Pair:
    """One picture (or several) and what to change.

    Attributes:
        pair_id: unique in its category, and fit for a file name.
        category: as the data gives it; in paths it is its `category_folder`.
        given_id: the id that the data gives it, if it gives one.
        problem: why the pair cannot be used, if it cannot.
        language: of the instruction, as GEdit-Bench says it: en or cn; empty where unknown.
        intersection_exist: GEdit-Bench's mark of pairs that it has in every language; None where
            the data has no such marks.
        index: its place in the whole input, whatever part of it is run.
    """

    pair_id: str
    category: str
    instruction: str = ""
    source_images: tuple[str, ...] = ()
    problem: InputError | None = None
    language: str = "en"
    intersection_exist: bool | None = None
    index: int = 0
    given_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its place below a folder of edits or verdicts, and what logs call it."""
        return f"{category_folder(self.category)}/{self.pair_id}"


@dataclass(frozen=True)
class PairSet:
    """All pairs of one input, in its order."""

    name: str
    pairs: list[Pair]

    @property
    def categories(self) -> list[str]:
        """In the order in which they first appear."""
        return list(dict.fromkeys(pair.category for pair in self.pairs))

    def selected(self, categories: Sequence[str] | None, limit: int | None) -> "PairSet":
        """Only some categories, and only the first `limit` pairs of what is left.

        Raises:
            InputError: a category that no pair has.
        """
        pairs = self.pairs
        if categories is not None:
            unknown = [c for c in categories if c not in self.categories]
            if unknown:
                raise InputError(
                    f"categories: {unknown[0]!r} is not in {self.name}; there are "
                    f"{', '.join(self.categories)}."
                )
            pairs = [pair for pair in pairs if pair.category in categories]
        return PairSet(self.name, pairs[:limit])


def read_pairs(data: str | Path, work_folder: Path) -> PairSet:
    """Read an input in any of the three forms.

    Args:
        work_folder: where pictures that come inside a JSON file are written.

    Raises:
        InputError: nothing there, or nothing that is read here.
        StorageError: `work_folder` cannot be written.
    """
    from apps.edit_benchmark.gedit import is_gedit, read_gedit
    from apps.edit_benchmark.imagefolder import read_imagefolder
    from apps.edit_benchmark.re_edit import read_re_edit

    path = find_data(data)
    name = path.stem if path.is_file() else path.name
    if path.is_file():
        pairs = read_re_edit(path, work_folder)
    elif is_gedit(path):
        pairs = read_gedit(path)
    else:
        pairs = read_imagefolder(path)
    if not pairs:
        raise InputError(f"data: {path} holds no pairs.")
    return PairSet(name, _with_unique_ids(pairs))


def find_data(data: str | Path) -> Path:
    """From the current folder, then from this project's."""
    given = readings(data, "data")
    for path in (*given, *(PROJECT_DIR / path for path in given)):
        if os.path.exists(path):
            return Path(os.path.abspath(path))  # without "..": what lies below is compared by text
    raise InputError(f"data: {shown(str(data))} is neither a file nor a folder.")


def _with_unique_ids(pairs: Sequence[Pair]) -> list[Pair]:
    """Ids that the data gives twice are failed records: which pair is meant is unknown.

    Others that clash get their position appended. The first keeps its own, so that ids and
    results stay as they are when the data grows.
    """
    given: set[tuple[str, str]] = set()
    taken: set[str] = set()
    unique = []
    for position, pair in enumerate(pairs):
        if pair.given_id is not None:
            key = (pair.category, pair.given_id)
            if key in given:
                pair = _given_twice(pair)
            given.add(key)
        own, numbers = pair.pair_id, ""
        while output_key(pair.name) in taken:
            numbers += f"_{position:04d}"
            shortened = cut(own, len(own), MAX_BYTES - len(numbers))
            pair = replace(pair, pair_id=f"{shortened}{numbers}")
        taken.add(output_key(pair.name))
        sources = tuple(map(as_text, pair.source_images))
        unique.append(replace(pair, index=position, source_images=sources))
    return unique


def _given_twice(pair: Pair) -> Pair:
    problem = InputError(f"Pair {pair.given_id!r} of {pair.category!r} is given twice.")
    return replace(pair, problem=problem, given_id=None)
