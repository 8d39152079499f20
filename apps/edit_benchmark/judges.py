"""The judges that scored the edits of one folder: each has its verdicts and its own tables.

`scores/JUDGE/CATEGORY/PAIR.json` is a verdict (in `scores-2/…` that on a pair's second edit),
`tables/JUDGE/` has the judge's tables, which no other judge writes. A verdict on an edit that was
made anew since does not count.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.attempt import SCORES, verdict_place
from apps.edit_benchmark.categories import category_folder
from apps.edit_benchmark.records import Record, mass_of, outcome_of_verdict, parts_of_calls
from apps.edit_benchmark.summary import JudgedBy, OtherJudge, read_makers
from apps.edit_benchmark.usage import usage_of
from apps.edit_benchmark.verdicts import read_verdict
from core.errors import InputError
from core.names import bounded
from core.paths import as_text, on_disk
from core.store.outputs import storage_error

TABLES = "tables"
MAX_KEPT = 200  # bytes of a judge's name, where a hash follows it
NOT_JUDGED = "This judge has not scored the edit as it is now."


def tables_of(folder: Path, judge: str) -> Path:
    """Where a judge's tables lie in a results folder."""
    return folder / TABLES / on_disk(judge)


def keep_tables_of_another(folder: Path, judged_by: JudgedBy) -> None:
    """Move tables aside that a judge of the same name, but with other settings or weights, wrote.

    Raises:
        StorageError: the disk refuses.
    """
    place = tables_of(folder, judged_by.judge)
    try:
        before = read_makers(place).judged_by
    except InputError:  # there are none
        return
    if before.identity == judged_by.identity:
        return
    kept, again = (_kept_tables(folder, by) for by in (before, judged_by))
    try:
        for old in (kept, again):  # those of the judge that is back are written anew
            if old.is_dir():
                shutil.rmtree(old)
        os.replace(place, kept)
    except OSError as error:
        raise storage_error(error, kept) from None


def _kept_tables(folder: Path, judged_by: JudgedBy) -> Path:
    settings = hashlib.sha256(judged_by.identity.encode()).hexdigest()[:8]
    return tables_of(folder, f"{bounded(judged_by.judge, MAX_KEPT)}-{settings}")


def verdict_file(folder: Path, judge: str, record: Record) -> Path:
    """Where a judge's verdict on the edit of a pair that counts lies, if it has one."""
    return _verdict_file(folder, judge, record, record.chosen or 0)


def _verdict_file(folder: Path, judge: str, record: Record, number: int) -> Path:
    name = f"{category_folder(record.category)}/{record.pair_id}"
    return folder / on_disk(verdict_place(name, judge, number))


@dataclass(frozen=True)
class Judged:
    """What a run's folder says of its judges.

    Attributes:
        libraries: versions of those that computed the verdicts of the run's own judge.
        usage: what its server was asked and counted, about all edits of the pairs; None where no
            server was asked.
        others: all judges but that one.
    """

    libraries: list[str]
    usage: dict[str, float] | None
    others: list[OtherJudge]


def read_judges(folder: Path, records: Sequence[Record], judge: str) -> Judged:
    """Read the verdicts of all judges on the pairs of a run.

    Args:
        records: of the run's own judge.
        judge: its name.
    """
    own = [verdict_at(verdict_file(folder, judge, record)) for record in records]
    shown = [_shown(folder, r, verdict) for r, verdict in zip(records, own, strict=True)]
    names = (as_text(p.name) for p in (folder / SCORES).glob("*") if p.is_dir())
    others = (_other(folder, name, records, shown) for name in sorted(names) if name != judge)
    every = (
        verdict_at(_verdict_file(folder, judge, record, number))
        for record in records
        for number in range(len(record.edits or (record,)))
    )
    known = [other for other in others if other is not None]
    return Judged(_libraries(own), usage_of(every), known)


def verdict_at(file: Path) -> dict[str, Any] | None:
    """A verdict; None where there is none, or a damaged one, which says nothing."""
    try:
        return read_verdict(file) if file.is_file() else None
    except ValueError:
        return None


def _shown(folder: Path, record: Record, verdict: Mapping[str, Any] | None) -> set[str]:
    """Hashes of the pictures that a judge was shown; of the edit alone where it has no verdict."""
    if verdict is not None:
        return set(verdict.get("files") or ())
    if record.edited_image is None:
        return set()
    try:
        with (folder / on_disk(record.edited_image)).open("rb") as file:
            return {hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError:
        return set()


def _other(
    folder: Path, name: str, records: Sequence[Record], shown: Sequence[set[str]]
) -> OtherJudge | None:
    """Another judge's records of the pairs; None if it scored none of the edits as they are now."""
    verdicts = [verdict_at(verdict_file(folder, name, record)) for record in records]
    theirs = [
        verdict if verdict is not None and _of_same_edit(verdict, seen) else None
        for verdict, seen in zip(verdicts, shown, strict=True)
    ]
    found = [_as_judged(r, verdict) for r, verdict in zip(records, theirs, strict=True)]
    names = next((list(record.scores) for record in found if record.scores), None)
    return OtherJudge(judged_by_of(folder, name, theirs), names, found) if names else None


def _of_same_edit(verdict: Mapping[str, Any], shown: set[str]) -> bool:
    """Judges may be shown more than source and edit; these all of them are."""
    theirs = set(verdict.get("files") or ())
    return bool(theirs and shown) and (theirs <= shown or theirs >= shown)


def _as_judged(record: Record, verdict: Mapping[str, Any] | None) -> Record:
    """A record with another judge's scores in place of its own."""
    if record.outcome == "edit_failed" or record.edited_image is None:
        return record
    bare = replace(record, score_seconds=0.0, mass=None, parts=None)
    if verdict is None:
        return replace(bare, outcome="not_tried", scores=None, error=NOT_JUDGED)
    outcome, scores, error = outcome_of_verdict(verdict)
    judged = replace(bare, outcome=outcome, scores=scores, error=error)
    return replace(judged, mass=mass_of(verdict), parts=parts_of_calls(verdict))


def judged_by_of(folder: Path, name: str, verdicts: Sequence[Mapping[str, Any] | None]) -> JudgedBy:
    """A judge as its own tables tell of it, or else, where it has none, as its verdicts do."""
    used: Mapping[str, Any] = next((v["used"] for v in verdicts if v is not None), {})
    model, prompts = str(used.get("model", "")), str(used.get("prompt_hash", ""))
    try:
        told = read_makers(tables_of(folder, name)).judged_by
        if not prompts or (told.model, told.prompt_hash) == (model, prompts):
            return told  # simulated judges do not say by which prompts they were asked
    except InputError:  # written by an earlier version, or removed
        pass
    return JudgedBy(name, model, prompts, {}, None, None, _libraries(verdicts))


def _libraries(verdicts: Sequence[Mapping[str, Any] | None]) -> list[str]:
    told = (v["used"].get("libraries") for v in verdicts if v is not None)
    return sorted({str(libraries) for libraries in told if libraries})
