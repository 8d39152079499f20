"""Judges' verdicts as they lie in the results' folder."""

import json
from pathlib import Path
from typing import Any


def read_verdict(file: Path) -> dict[str, Any]:
    """A judge's verdict: `used` with the scores, `calls` with what it said.

    Raises:
        ValueError: somebody removed or damaged it.
    """
    try:
        verdict = dict(json.loads(file.read_text("utf-8")))
        scores, calls = verdict["used"]["scores"], verdict.get("calls", [])
        if not all(isinstance(score, int | float) for score in (scores or {}).values()):
            raise TypeError("scores")
        if not all(isinstance(call["name"], str) for call in calls):
            raise TypeError("calls")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"The verdict {file.name} is damaged or gone") from error
    return verdict
