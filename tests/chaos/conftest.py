"""A table of what was attacked, how often, and what was found."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.scale import FULL
from tests.chaos.verdict import Verdict

Record = Callable[[Verdict], Verdict]
PROPERTY = "chaos"


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Record:
    """Enters a verdict into the table at the end."""

    def record(verdict: Verdict) -> Verdict:
        row = (verdict.promise, verdict.attack, verdict.attempts, dict(verdict.violations))
        record_property(PROPERTY, row)
        if verdict.violations:
            print(verdict.log)
        return verdict

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not FULL:
        return
    runs: Counter[tuple[str, str]] = Counter()
    attempts: Counter[tuple[str, str]] = Counter()
    violations: dict[tuple[str, str], Counter[str]] = {}
    for outcome in ("passed", "failed"):
        for test in terminalreporter.stats.get(outcome, []):
            for name, row in test.user_properties:
                if name == PROPERTY:
                    key = (row[0], row[1])
                    runs[key] += 1
                    attempts[key] += row[2]
                    violations.setdefault(key, Counter()).update(row[3])
    terminalreporter.section("chaos")
    terminalreporter.write_line("| promise | attack | runs | attempts | violations |")
    terminalreporter.write_line("| --- | --- | ---: | ---: | --- |")
    for key in sorted(runs):
        found = ", ".join(f"{n} {kind}" for kind, n in sorted(violations[key].items())) or "0"
        terminalreporter.write_line(
            f"| {key[0]} | {key[1]} | {runs[key]} | {attempts[key]} | {found} |"
        )
