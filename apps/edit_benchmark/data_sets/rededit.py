"""REDEdit-Bench (FireRedTeam): JSONL beside its pictures, or a table, in two languages.

A row has `id`, `task`, `source` (a picture, or several), `a_to_b_instructions` (Chinese) and
`a_to_b_instructions_eng`. English is run; Chinese, which its own scripts take unless they are told
otherwise, has to be asked for.
"""

from collections.abc import Iterator
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import arrow_files, first_row, json_files, table_columns
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of

_CHINESE, _ENGLISH = "a_to_b_instructions", "a_to_b_instructions_eng"


@DATA_SETS.add_one("rededit")
class RedEdit:
    """A JSONL file, a table, or a folder with either."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return _has_columns(table_columns(path)) or bool(_files(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        tables = [file for file in arrow_files(path) if _has_columns(table_columns(file))]
        return [pair for file in tables or _files(path) for pair in pairs_of(rows_of(file), _pairs)]


def _has_columns(names: frozenset[str]) -> bool:
    return "task" in names and bool({_CHINESE, _ENGLISH} & names)


def _files(path: Path) -> list[Path]:
    return [file for file in json_files(path) if _has_columns(frozenset(first_row(file)))]


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category = row.label("task")
    draft.given_id = row.label("id", "") or None
    draft.pair_id = file_name(draft.given_id or draft.pair_id)
    both = bool(row.values.get(_ENGLISH)) and bool(row.values.get(_CHINESE))
    name, given = draft.pair_id, draft.given_id
    sources = row.pictures("source")
    for language, column in (("en", _ENGLISH), ("cn", _CHINESE)):
        draft.language = language
        if not row.values.get(column) and (language == "en" or both or row.values.get(_ENGLISH)):
            continue
        second = both and language == "cn"
        draft.pair_id = f"{name}_cn" if second else name
        yield Pair(
            draft.pair_id,
            draft.category,
            row.text(column),
            sources,
            language=language,
            given_id=f"{given}_cn" if second and given else given,
            asked_by=("cn",) if second else (),
            metadata=row.others("source", "task", _CHINESE, _ENGLISH),
        )
