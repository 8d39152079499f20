"""Complex-Edit (UCSC-VLAA/Complex-Edit): each picture has an instruction of every complexity.

A row has `image` (in its folders, `file_name`) and `edit`: an object, or its JSON text, with
`compound`, a list of `compound_instruction` for complexities 1 to 8, and `sequence`, the atomic
edits of which they consist. Splits are test_real and test_syn. The highest complexity is run;
others (`C1` to `C7`) and the atomic edits one after another (`sequence`) have to be asked for.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.look import arrow_files, first_row, json_files, split_of, table_columns
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError
from core.validation import shown

SEQUENCE = "sequence"
_DEPTH = 2  # test/real/metadata.jsonl


@DATA_SETS.add_one("complex_edit")
class ComplexEdit:
    """A table, or folders of pictures with a metadata.jsonl."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        if {"image", "edit"} <= table_columns(path):
            return _has_compound(next(rows_of(arrow_files(path)[0]), None))
        return bool(_files(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        pairs: list[Pair] = []
        places: dict[str, Iterator[int]] = defaultdict(count)  # a split may have several parts
        for file in arrow_files(path) or _files(path):
            split = _split_of(file, path)
            pairs += pairs_of(rows_of(file), _Rows(split), places=places[split])
        return pairs


def _has_compound(row: Row | None) -> bool:
    try:
        return row is not None and "compound" in _edit(row.values)
    except InputError:
        return False


def _files(path: Path) -> list[Path]:
    found = []
    for file in json_files(path, _DEPTH):
        row = first_row(file)
        if "edit" in row and _has_compound(Row(row, file, 1, file.parent)):
            found.append(file)
    return found


def _edit(values: Mapping[str, Any]) -> Mapping[str, Any]:
    edit = values.get("edit")
    if isinstance(edit, str):
        try:
            edit = json.loads(edit)
        except (ValueError, RecursionError):
            raise InputError(f"edit: not valid JSON (found {shown(edit)}).") from None
    if not isinstance(edit, Mapping):
        raise InputError(f"edit: expected an object (found {shown(edit)}).")
    return edit


def _split_of(file: Path, path: Path) -> str:
    parts = split_of(file, path) or (file.parent.name,)
    words = {word for part in parts for word in part.split("_")}
    return next((kind for kind in ("real", "syn") if kind in words), parts[-1])


class _Rows:
    """How rows of one split become pairs."""

    def __init__(self, split: str) -> None:
        self._split = split

    def __call__(self, row: Row, draft: Draft) -> Iterator[Pair]:
        draft.language, draft.category = "en", self._split
        draft.pair_id = name = f"{draft.index:04d}"
        edit = _edit(row.values)
        source = row.picture("image" if "image" in row.values else "file_name")
        if not isinstance(source, Embedded):
            name = file_name(Path(source).stem)
        compound = _instructions(edit, "compound", "compound_instruction")
        if not compound:
            raise InputError("edit.compound: is missing or empty; expected a list.")
        for level, instruction in enumerate(compound, 1):
            subset = f"C{level}"
            yield Pair(
                f"{name}_{subset}",
                self._split,
                instruction,
                (source,),
                language="en",
                subsets=(self._split, subset),
                asked_by=() if level == len(compound) else (subset,),
                metadata={"complexity": level},
            )
        before = ""
        for step, instruction in enumerate(_instructions(edit, SEQUENCE, "instruction"), 1):
            pair = Pair(
                f"{name}_step{step}",
                self._split,
                instruction,
                () if before else (source,),
                language="en",
                follows=before,
                subsets=(self._split, SEQUENCE),
                asked_by=(SEQUENCE,),
                metadata={"step": step},
            )
            before = pair.name
            yield pair


def _instructions(edit: Mapping[str, Any], field: str, name: str) -> list[str]:
    """The texts of a list of objects.

    Raises:
        InputError: something else in it.
    """
    entries = edit.get(field)
    if entries is None:
        return []
    found = entries if isinstance(entries, list) else [entries]
    texts = [entry.get(name) if isinstance(entry, Mapping) else entry for entry in found]
    words = [text for text in texts if isinstance(text, str) and text]
    if len(words) < len(texts):
        raise InputError(f"edit.{field}: expected a list with {name} (found {shown(entries)}).")
    return words
