"""The scores that judges gave in one or more result folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.edit_benchmark.attempt import SCORES, verdict_place
from apps.edit_benchmark.categories import category_folder
from apps.edit_benchmark.judges import judged_by_of, verdict_at
from apps.edit_benchmark.preferences import OVERALL
from apps.edit_benchmark.records import parts_of_calls, read_records
from apps.edit_benchmark.summary import JudgedBy
from core.errors import InputError
from core.paths import as_text, on_disk

# EditScore's dimensions are the two parts of its question about semantic consistency.
PARTS_OF_SC = {"prompt_following": 0, "consistency": 1}


@dataclass(frozen=True)
class Scored:
    """One verdict: its scores and parts by name, and hashes of the pictures that it is of."""

    scores: dict[str, float]
    parts: dict[str, dict[str, float]]
    files: frozenset[str]


@dataclass(frozen=True)
class JudgeRun:
    """One judge in one folder. `verdicts` are those with a score, by the pair's name."""

    folder: str
    judged_by: JudgedBy
    verdicts: dict[str, Scored]

    def scores_for(self, dimension: str, chosen: Mapping[str, str]) -> dict[str, float]:
        """The scores by which candidates are compared, by the pair's name.

        Args:
            chosen: the score or part of each dimension for which the user named one.
        """
        found = ((name, _value(v, dimension, chosen)) for name, v in self.verdicts.items())
        return {name: value for name, value in found if value is not None}


def _value(verdict: Scored, dimension: str, chosen: Mapping[str, str]) -> float | None:
    name = chosen.get(dimension)
    if name is not None:
        call, _, part = name.partition(".")
        return verdict.parts.get(call, {}).get(part) if part else verdict.scores.get(name)
    if dimension in verdict.scores:
        return verdict.scores[dimension]
    if dimension == OVERALL:
        return next(reversed(verdict.scores.values()), None)
    for parts in verdict.parts.values():
        if dimension in parts:
            return parts[dimension]
    of_sc = list(verdict.parts.get("SC", {}).values())
    place = PARTS_OF_SC.get(dimension)
    return of_sc[place] if place is not None and len(of_sc) == 2 else None


def read_runs(folder: Path, wanted: Sequence[str], names: Sequence[str] | None) -> list[JudgeRun]:
    """The judges of a results folder.

    Args:
        wanted: names of judges; all where there are none.
        names: of the pairs; None: those of the folder's results.jsonl.

    Raises:
        InputError: no results, or none of a judge that is wanted.
    """
    if names is None:  # of several edits of a pair it is the one that counts
        edits = {
            f"{category_folder(r.category)}/{r.pair_id}": r.chosen or 0
            for r in read_records(folder)
        }
    else:
        edits = dict.fromkeys(names, 0)
    judges = sorted(as_text(p.name) for p in (folder / SCORES).glob("*") if p.is_dir())
    missing = [judge for judge in wanted if judge not in judges]
    if missing or not judges:
        there = f"it has {', '.join(judges)}" if judges else "it has no verdicts"
        raise InputError(f"{folder}: no verdicts of {', '.join(missing) or 'a judge'}; {there}.")
    return [_read(folder, judge, edits) for judge in judges if not wanted or judge in wanted]


def _read(folder: Path, judge: str, edits: Mapping[str, int]) -> JudgeRun:
    """A judge's verdicts on edits, by the names of their pairs and which of each pair's it is."""
    found = {
        name: verdict_at(folder / on_disk(verdict_place(name, judge, number)))
        for name, number in edits.items()
    }
    known = {name: verdict for name, verdict in found.items() if verdict is not None}
    told = judged_by_of(folder, judge, list(known.values()))
    verdicts = {name: _scored(v) for name, v in known.items() if v["used"]["scores"]}
    return JudgeRun(str(folder), told, verdicts)


def _scored(verdict: Mapping[str, Any]) -> Scored:
    scores = {str(k): float(v) for k, v in verdict["used"]["scores"].items()}
    parts = parts_of_calls(verdict) or {}
    return Scored(scores, parts, frozenset(verdict.get("files") or ()))
