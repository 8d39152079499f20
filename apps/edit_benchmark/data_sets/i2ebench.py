"""I2EBench (cocoshe/I2EBench): `EditData/<task>/<task>.json` beside `input/`, `mask/` and `gt/`.

A file is an object of rows by key: `image`, `ori_exp` (the original instruction), `div_exp` (a
diverse wording of it), `type`, and with most tasks `Evaluation` and `Answer`, a question about the
edit with its right answer. Tasks of low level have the right result in `gt/`, RegionAccuracy a
`mask`, and StyleAlteration the name of the `style`, which metrics know as `output_caption`. The
diverse wordings have to be asked for. Those rows that have a question are a part by themselves.

Seven tasks go on for up to five rounds: a row of `<task>_2nd.json`, `_3nd`, `_4nd` or `_5nd` edits
what was made in the round before for the same key. These have to be asked for.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import first_row, json_files
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name, inside
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError
from core.judges.metrics import AFTER

ORIGINAL, DIVERSE = "original", "diverse"
QUESTIONS, ROUNDS = "questions", "rounds"
ASKED, RIGHT = "Evaluation", "Answer"
ROUND = "round"
"""What a later round's pairs have in their metadata: its number, from 2."""
_COLUMNS = {"image", "ori_exp"}
_DEPTH = 2  # the repository holds EditData, which holds the tasks
_LATER = re.compile(r"(?P<task>.+)_(?P<number>[2-9])(?:nd|rd|th)")


@DATA_SETS.add_one("i2ebench")
class I2EBench:
    """The repository, its folder EditData, one task's folder, or that one's file."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return any(first_row(file).keys() >= _COLUMNS for file, _ in _rounds(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return [pair for file, number in _rounds(path) for pair in _of_round(file, number)]


def _of_round(file: Path, number: int) -> list[Pair]:
    if number == 1:
        return pairs_of(rows_of(file), _Round(number))
    pairs = pairs_of(rows_of(file), _Round(number), subsets=(ROUNDS,))
    return [replace(pair, asked_by=(*pair.asked_by, ROUNDS)) for pair in pairs]


def _rounds(path: Path) -> list[tuple[Path, int]]:
    """Files of tasks by their names, each with its round; later rounds where the first is there."""
    numbered = [(file, _number(file)) for file in json_files(path, _DEPTH)]
    tasks = {file.parent for file, number in numbered if number == 1}
    found = [each for each in numbered if each[1] and each[0].parent in tasks]
    return sorted(found, key=lambda each: (each[0].parent, each[1]))


def _number(file: Path) -> int:
    """The round that a file has; 0 of another file."""
    if file.stem == file.parent.name:
        return 1
    later = _LATER.fullmatch(file.stem)
    return int(later["number"]) if later and later["task"] == file.parent.name else 0


def round_of(pair: Pair) -> int:
    """The round of a pair of this data set, from 1."""
    number = pair.metadata.get(ROUND)
    return number if isinstance(number, int) else 1


def key_of_row(pair: Pair) -> str:
    """The key under which the row of a pair stands in the files of all rounds."""
    wording = "_div" if DIVERSE in pair.subsets else ""
    return str(pair.given_id).removesuffix(wording).removesuffix(f"_{ROUND}{round_of(pair)}")


def folder_of(pair: Pair, name: str) -> str:
    """The folder that its scripts have for the wording and round of a pair, such as EditEval_ori.

    Args:
        name: of the folder of the diverse wordings' first round.
    """
    wording = "" if DIVERSE in pair.subsets else "_ori"
    number = round_of(pair)
    return f"{name}{wording}{f'_{number}nd' if number > 1 else ''}"


class _Round:
    """How rows of one round become pairs."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, row: Row, draft: Draft) -> Iterator[Pair]:
        draft.category, draft.language = row.folder.name, "en"
        name = row.text("image")
        key = row.key or Path(name).stem
        draft.given_id = self._id(key, self._number)
        draft.pair_id = file_name(draft.given_id)
        source = inside(row.folder / "input", name, "image")
        right = row.folder / "gt" / source.name
        has_right = right.parent.is_dir()  # then one without is not all there
        mask = row.text("mask", "")
        asked = (QUESTIONS,) if row.text(ASKED, "").strip() and row.label(RIGHT) else ()
        more = row.others("ori_exp", "div_exp", "mask")
        if style := row.text("style", "").strip():
            more[AFTER] = style
        original = Pair(
            draft.pair_id,
            draft.category,
            row.text("ori_exp"),
            (str(source),),
            language=draft.language,
            target_images=(str(right),) if has_right and self._number == 1 else (),
            mask=str(inside(row.folder / "mask", mask, "mask")) if mask else "",
            given_id=draft.given_id,
            subsets=(ORIGINAL, *asked),
            metadata=more,
        )
        yield self._placed(original, key)
        other = replace(
            original,
            pair_id=f"{draft.pair_id}_div",
            given_id=f"{draft.given_id}_div",
            subsets=(DIVERSE, *asked),
            asked_by=(DIVERSE,),
        )
        try:
            diverse = row.text("div_exp", "")
        except InputError as problem:  # of this wording alone
            yield replace(other, problem=InputError(f"{row.place}: {problem}"))
            return
        if diverse.strip():
            yield self._placed(replace(other, instruction=diverse), key, "_div")

    def _placed(self, pair: Pair, key: str, wording: str = "") -> Pair:
        """A pair of this round: of a later one, its source is the edit of the round before."""
        if self._number == 1:
            return pair
        before = f"{file_name(self._id(key, self._number - 1))}{wording}"
        return replace(
            pair,
            source_images=(),
            follows=Pair(before, pair.category).name,
            metadata={**pair.metadata, ROUND: self._number},
        )

    @staticmethod
    def _id(key: str, number: int) -> str:
        return key if number == 1 else f"{key}_{ROUND}{number}"
