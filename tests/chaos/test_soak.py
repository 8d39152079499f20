"""A short form of `python -m benchmarks.soak`: every kind of caller, and what is left of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.soak import soak
from tests.chaos.scale import FULL
from tests.chaos.verdict import Verdict

Report = Callable[[Verdict], Verdict]
SECONDS, ROUND = 40.0, 8.0  # of churn, between two looks
KEPT = 10.0  # seconds for which results and pictures are kept


@pytest.mark.skipif(not FULL, reason="it takes a minute and a half: make chaos")
def test_a_daemon_holds_no_more_after_many_callers_than_before(
    tmp_path: Path, report: Report
) -> None:
    findings = soak(tmp_path, SECONDS, seed=1, round_seconds=ROUND, kept=KEPT)
    verdict = Verdict("a daemon keeps nothing of its callers", "40 s of every kind of caller")
    verdict.attempts = 1
    broken = [finding.words for finding in findings if not finding.held]
    verdict.found("leftover", len(broken))
    assert not report(verdict).violations, "\n".join(broken)
