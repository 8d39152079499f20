"""One record per pair: what was asked, what became of it, what it scored."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from loguru import logger

from apps.edit_benchmark.pair_result import AttemptResult, PairResult
from apps.edit_benchmark.verdicts import read_verdict
from apps.run_folders import runs_below
from core.errors import InputError
from core.paths import as_text
from core.store.outputs import OutputRoot, json_lines

FILE_NAME = "results.jsonl"

Outcome = Literal["scored", "unparsed", "score_failed", "edit_failed", "not_tried"]
"""unparsed: the judge's answer gave no score. not_tried: the run ended before."""


@dataclass(frozen=True)
class Record:
    """One line of results.jsonl. A pair without a score has `scores` null, never a stand-in.

    Attributes:
        edited_image: relative to the results' folder where it lies there, else its whole path.
        scores: by name, such as SC, PQ and O.
        error: why there is no edit or no score.
        language: of the instruction; empty where unknown.
        intersection_exist: GEdit-Bench's mark of pairs that it has in every language; null where
            the data has no such marks.
        mass: for judges of type vlm_logits, the score tokens' probability together, by call.
        parts: for judges whose calls ask for several numbers: what each was given, by call.
        edits: where the pair has several edits, of other seeds: each with edited_image, seed,
            outcome and scores.
        drift: how far the edit lies beside its source: `shift` in percent of the diagonal, of which
            `right` and `down` in pixels, and `zoom` in percent; null where too little of the
            source is left to tell.
        chosen: the place among these of the edit that counts, from 0: the judge's best.
    """

    pair_id: str
    category: str
    instruction: str
    language: str
    source_images: tuple[str, ...]
    edited_image: str | None
    outcome: Outcome
    scores: dict[str, float] | None
    error: str | None
    edit_seconds: float
    score_seconds: float
    seed: int | None
    intersection_exist: bool | None = None
    mass: dict[str, float] | None = None
    parts: dict[str, dict[str, float]] | None = None
    edits: list[dict[str, Any]] | None = None
    chosen: int | None = None
    drift: dict[str, float] | None = None


def record_of(result: PairResult, root: OutputRoot) -> Record:
    """The record of one pair; scores are read from the judge's verdict."""
    pair, edit, score = result.pair, result.edit, result.score
    edited = _below(Path(edit.output_path), root.folder) if edit.output_path else None
    file = Path(str(score.output_path)) if score is not None and score.success else None
    try:
        verdict = read_verdict(file) if file is not None else {}
        outcome, scores, error = _outcome(result, verdict)
    except ValueError as damage:
        verdict, scores = {}, None
        outcome, error = "score_failed", f"{damage}; delete it, and its edit is scored again."
        logger.error(f"score {pair.name}: {error}")
    if outcome == "unparsed" and file is not None:
        error = f"{error} The judge's words are in {file.relative_to(root.folder).as_posix()}."
    return Record(
        pair.pair_id,
        pair.category,
        pair.instruction,
        pair.language,
        pair.source_images,
        as_text(edited) if edited else None,
        outcome,
        scores,
        error,
        edit.elapsed,
        score.elapsed if score else 0.0,
        edit.seed,
        pair.intersection_exist,
        mass_of(verdict),
        parts_of_calls(verdict),
        [_edit_of(result, attempt, root) for attempt in result.attempts] or None,
        result.chosen if result.attempts else None,
    )


def _edit_of(result: PairResult, attempt: AttemptResult, root: OutputRoot) -> dict[str, Any]:
    """What a record says of one of several edits."""
    own = record_of(PairResult(result.pair, attempt.edit, attempt.score), root)
    return {
        "edited_image": own.edited_image,
        "seed": own.seed,
        "outcome": own.outcome,
        "scores": own.scores,
    }


def mass_of(verdict: Mapping[str, Any]) -> dict[str, float] | None:
    """The score tokens' probability together, by call, where a verdict speaks of it."""
    return {c["name"]: c["mass"] for c in verdict.get("calls", []) if "mass" in c} or None


def parts_of_calls(verdict: Mapping[str, Any]) -> dict[str, dict[str, float]] | None:
    """The numbers of calls that ask for several, by call."""
    calls = [call for call in verdict.get("calls", []) if isinstance(call.get("parts"), dict)]
    return {c["name"]: dict(c["parts"]) for c in calls if len(c["parts"]) > 1} or None


def _below(file: Path, folder: Path) -> Path:
    """The file's path in a folder; its whole path if it lies elsewhere."""
    return file.relative_to(folder) if file.is_relative_to(folder) else file


def _outcome(
    result: PairResult, verdict: dict[str, Any]
) -> tuple[Outcome, dict[str, float] | None, str | None]:
    edit, score = result.edit, result.score
    if not edit.success:
        passing = edit.status in ("interrupted", "timeout")
        return "not_tried" if passing else "edit_failed", None, edit.error
    if score is None:
        return "not_tried", None, "Not scored: the run was interrupted."
    if not score.success:
        passing = score.status in ("interrupted", "timeout")
        return "not_tried" if passing else "score_failed", None, score.error
    return outcome_of_verdict(verdict)


def outcome_of_verdict(
    verdict: Mapping[str, Any],
) -> tuple[Outcome, dict[str, float] | None, str | None]:
    """Outcome, scores, and why there are none."""
    if verdict["used"]["scores"] is None:
        calls = [call for call in verdict.get("calls", []) if call.get("problem")]
        problems = "; ".join(f"{call['name']}: {call['problem']}" for call in calls)
        return "unparsed", None, f"No score: {problems or 'the answer was not in form'}."
    return "scored", verdict["used"]["scores"], None


def lines(records: Iterable[Record]) -> str:
    """Lines of results.jsonl."""
    return json_lines(map(asdict, records))


def read_records(folder: Path) -> list[Record]:
    """The records of a finished run.

    Raises:
        InputError: no results folder, or a damaged one.
    """
    file = folder / FILE_NAME
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
        return [Record(**{**row, "source_images": tuple(row["source_images"])}) for row in rows]
    except OSError as error:
        meant = runs_below(folder, FILE_NAME)
        raise InputError(f"{file}: cannot be read: {error.strerror}.{meant}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not the results of a benchmark ({error}).") from None


def categories_of(records: Sequence[Record]) -> list[str]:
    """Categories of the records, in the order in which they first appear."""
    return list(dict.fromkeys(r.category for r in records))
