"""Which verdict belongs to which edit, and what the judge said."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from apps.gallery.items import FINAL_STATES, STATES, Verdict
from core.paths import on_disk
from core.store.ledger_entry import Entry
from core.store.ledger_reading import Recorded
from core.store.outputs import output_key

MOST_BYTES = 1_000_000  # of a verdict
MOST_WORDS = 6_000  # characters of an answer that are shown


class Verdicts:
    """The scores among a folder's tasks, by the edit that each one is of.

    An edit may have been recorded under a path of a folder that has been moved since: the longest
    end of its path that is an output of this folder says which one it is.

    Attributes:
        alone: scores of pictures that are no outputs of this folder.
    """

    def __init__(self, folder: Path, scores: Sequence[Recorded], edits: Sequence[Entry]) -> None:
        self._folder = folder
        keys = {edit.key for edit in edits if edit.output_path is not None}
        found: dict[str, list[Recorded]] = defaultdict(list)
        self.alone: list[Recorded] = []
        for score in scores:
            key = _ending(str(score.entry.task.get("edited_image")), keys)
            if key is None:
                self.alone.append(score)
            else:
                found[key].append(score)
        self._found = {key: newest_of_each_judge(folder, of_it) for key, of_it in found.items()}

    def of(self, key: str) -> tuple[Verdict, ...]:
        """The verdicts on the edit with a key."""
        return self._found.get(key, ())


def newest_of_each_judge(folder: Path, scores: Sequence[Recorded]) -> tuple[Verdict, ...]:
    """The verdicts on one edit, the newest last; a score that waits or runs is none yet."""
    found: dict[str, Verdict] = {}
    ended = (score for score in scores if STATES[score.entry.state] in FINAL_STATES)
    for score in sorted(ended, key=lambda score: score.updated):
        verdict = read_verdict(folder, score)
        found.pop(verdict.judge, None)
        found[verdict.judge] = verdict
    return tuple(found.values())


def _ending(path: str, keys: set[str]) -> str | None:
    """The output whose path is the longest end of `path`."""
    parts = PurePosixPath(output_key(path)).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in keys), None)


def read_verdict(folder: Path, score: Recorded) -> Verdict:
    """What a judge's file says; a damaged or missing one is an error that says so."""
    entry = score.entry
    judge = str(entry.used.get("judge") or _folder_name(entry) or "judge")
    if entry.state != "done":
        return Verdict(judge, None, error=entry.error, updated=score.updated)
    file = os.path.join(folder, on_disk(str(entry.output_path)))
    try:
        if os.stat(file).st_size > MOST_BYTES:
            raise ValueError("too large")
        with open(file, encoding="utf-8") as stream:
            content = json.load(stream)
        scores, calls = content["used"]["scores"], content.get("calls", [])
        numbers = None if scores is None else {str(k): float(v) for k, v in scores.items()}
        return Verdict(judge, numbers, [_call(call) for call in calls], None, score.updated)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        scores = entry.used.get("scores")
        if isinstance(scores, dict):
            numbers = {str(k): float(v) for k, v in scores.items() if isinstance(v, int | float)}
            return Verdict(judge, numbers, updated=score.updated)
        error = f"The verdict {entry.output_path} is damaged or gone."
        return Verdict(judge, None, error=error, updated=score.updated)


def _folder_name(entry: Entry) -> str | None:
    """The judge's folder in a benchmark's results: scores/JUDGE/CATEGORY/PAIR.json."""
    parts = PurePosixPath(entry.output_path or "").parts
    return parts[1] if len(parts) > 2 and parts[0] == "scores" else None


def _call(call: dict[str, Any]) -> dict[str, Any]:
    said = call.get("raw", call.get("words", ""))
    words = "\n\n".join(map(str, said)) if isinstance(said, list) else str(said or "")
    shown = {"name": str(call.get("name", "")), "words": words[:MOST_WORDS]}
    problem = call.get("problem")
    return {**shown, "problem": str(problem)} if problem else shown
