"""MagicBrush (OSU-NLP-Group), as a table (osunlp/MagicBrush) and as its test split is unpacked.

A table has `img_id`, `turn_index`, `source_img`, `mask_img`, `instruction`, `target_img`. On disk,
`<split>/edit_sessions.json` is an object of sessions by picture: lists of turns with `input`,
`mask`, `output` and `instruction`, whose pictures lie in `<split>/images/<id>/`. Captions of right
results are those of `<split>/local_descriptions.json`, by picture and `output`.

A session is run in two ways. Single turn: each turn edits the picture that the data has for it
(`<id>_1`, `<id>_inde_2`, …). Multi-turn: each edits what was made in the turn before (`<id>_1`,
`<id>_iter_2`, …). These are the names of its own script's edits; the second way has to be asked
for. The last turns of sessions are a part by themselves, for which all turns before are run.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.categories import UNSORTED
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.json_rows import Item, json_rows
from apps.edit_benchmark.look import arrow_files, json_files, split_of, table_columns
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError
from core.judges.metrics import AFTER
from core.validation import shown

SINGLE, MULTI = "single-turn", "multi-turn"
FINAL = "final-turn"
"""Which pairs of `MULTI` are the last of their sessions."""
_FILE = "edit_sessions.json"
_CAPTIONS = "local_descriptions.json"
_COLUMNS = {"img_id", "turn_index", "source_img", "instruction"}


@dataclass(frozen=True)
class _Names:
    """How the pictures of a turn are called."""

    source: str
    mask: str
    target: str


_ON_DISK = _Names("input", "mask", "output")
_IN_TABLE = _Names("source_img", "mask_img", "target_img")


@DATA_SETS.add_one("magicbrush")
class MagicBrush:
    """A table, a split's folder, or a folder with some of them."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return bool(_session_files(path)) or table_columns(path) >= _COLUMNS

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        files = _session_files(path)
        found = [_of_sessions(file) for file in files]
        if not files:
            parts: dict[tuple[str, ...], list[Path]] = {}
            for file in arrow_files(path):
                parts.setdefault(split_of(file, path), []).append(file)
            found = [_of_table(of_split, split) for split, of_split in parts.items()]
        return [pair for pairs in found for pair in _with_finals(pairs)]


def _with_finals(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs of whole sessions, of which it is said which turns are the last."""
    followed = {pair.follows for pair in pairs}
    for pair in pairs:
        final = MULTI in pair.subsets and pair.name not in followed
        yield replace(pair, subsets=(*pair.subsets, FINAL)) if final else pair


def _session_files(path: Path) -> list[Path]:
    return [file for file in json_files(path) if file.name == _FILE]


def _of_sessions(file: Path) -> list[Pair]:
    folder, captions = file.parent / "images", _captions(file.with_name(_CAPTIONS))
    sessions = (_session(file, *each) for each in enumerate(json_rows(file), 1))

    def build(row: Row, draft: Draft) -> Iterator[Pair]:
        draft.pair_id = file_name(row.key)
        below = folder / row.key
        for number, turn in enumerate(row.values["turns"], 1):
            fields = turn if isinstance(turn, Mapping) else {}
            problem = None if fields is turn else InputError(f"expected an object, {_found(turn)}.")
            pictures = below if below.is_dir() else folder
            each = Row(fields, file, row.number, pictures, row.key, problem)
            said = captions.get((row.key, str(fields.get(_ON_DISK.target))))
            yield from _turn(each, draft, row.key, number, number == 1, _ON_DISK, said)

    return pairs_of(sessions, build, subsets=(file.parent.name,))


def _captions(file: Path) -> dict[tuple[str, str], str]:
    """Captions by session and picture."""
    found = json_rows(file) if file.is_file() else ()
    return {
        (key, name): text
        for key, captions in found
        if isinstance(captions, Mapping)
        for name, text in captions.items()
        if isinstance(text, str) and text
    }


def _session(file: Path, number: int, item: Item) -> Row:
    key, turns = item
    good = isinstance(turns, list) and bool(turns)
    problem = None if good else InputError(f"expected a list of turns, {_found(turns)}.")
    return Row({"turns": turns}, file, number, file.parent / "images", key, problem)


def _of_table(files: Sequence[Path], split: tuple[str, ...]) -> list[Pair]:
    """The turns of a split, whose parts are cut between any two rows."""
    before: dict[str, int] = defaultdict(int)

    def build(row: Row, draft: Draft) -> Iterator[Pair]:
        key, number = row.label("img_id"), _number(row)
        draft.pair_id = file_name(f"{key}_{number}")
        # A table that was cut may begin with a later turn: it has nothing to follow.
        first = before[key] != number - 1 or number == 1
        before[key] = number
        return _turn(row, draft, key, number, first, _IN_TABLE)

    return [pair for file in files for pair in pairs_of(rows_of(file), build, subsets=split)]


def _number(row: Row) -> int:
    label = row.label("turn_index")
    if not label.isdecimal():
        raise InputError(f"turn_index: expected a number from 1 (found {shown(label)}).")
    return int(label)


def _turn(
    row: Row,
    draft: Draft,
    key: str,
    number: int,
    first: bool,
    names: _Names,
    caption: str | None = None,
) -> Iterator[Pair]:
    """The pairs of one turn: alone, and after the turn before.

    A turn that cannot be read fails in both ways, so that no other turn stands for it.
    """
    draft.language, draft.category = "en", UNSORTED
    alone = f"{key}_1" if number == 1 else f"{key}_inde_{number}"
    draft.pair_id = file_name(alone)
    source: tuple[str, ...] = ()
    try:
        known, source = _read(row, number, names), (row.picture(names.source),)
    except InputError as problem:
        known = {"problem": InputError(f"{row.place}, turn {number}: {problem}")}
    if caption is not None and "metadata" in known:
        known["metadata"][AFTER] = caption
    known |= {"category": draft.category, "language": draft.language}
    subsets = (SINGLE, MULTI) if first else (SINGLE,)
    yield Pair(draft.pair_id, source_images=source, subsets=subsets, given_id=alone, **known)
    if not first:
        later = f"{key}_iter_{number}"
        previous = file_name(f"{key}_1" if number == 2 else f"{key}_iter_{number - 1}")
        yield Pair(
            file_name(later),
            follows=Pair(previous, draft.category).name,
            subsets=(MULTI,),
            asked_by=(MULTI,),
            given_id=later,
            **known,
        )


def _read(row: Row, number: int, names: _Names) -> dict[str, Any]:
    """What a turn says of both of its pairs.

    Raises:
        InputError: a field cannot be used.
    """
    if row.problem is not None:
        raise row.problem
    return {
        "instruction": row.text("instruction"),
        "target_images": row.pictures(names.target, ()),
        "mask": row.picture(names.mask, ""),
        "metadata": {**row.others("instruction", *vars(names).values()), "turn": number},
    }


def _found(value: Any) -> str:
    return f"found {shown(value)}"
