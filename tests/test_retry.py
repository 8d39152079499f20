"""What becomes of a task whose attempt ended without a result: every rule, without an engine."""

from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.retry import FRESH, PASSING, Cause, Decision, History, after, is_suspect
from core.messages import FailureKind


@dataclass(frozen=True)
class Rules:
    max_attempts: int = 3
    crashes_before_quarantine: int = 3
    kills_before_quarantine: int = 6


RULES = Rules()
DEATHS: tuple[Cause, ...] = ("crash", "sigkill")
CAUSES: tuple[Cause, ...] = (*get_args(FailureKind), *DEATHS, "hung", "released")
FINAL = ("fail", "quarantine")


def lived(causes: str, rules: Rules = RULES) -> tuple[History, Decision]:
    """A task's life up to now: it runs alone when it is told to."""
    history = FRESH
    decision: Decision = "again"
    for cause in causes.split():
        history = history.plus(cause, alone=decision == "alone")  # type: ignore[arg-type]
        decision = after(history, rules)
    return history, decision


def times(count: int, cause: str) -> str:
    return " ".join([cause] * count)


@pytest.mark.parametrize(
    ("causes", "decision"),
    [
        # A worker's fault, memory, or a deadline may pass: three attempts.
        *[(cause, "again") for cause in ("error", "out_of_memory", "device", "hung")],
        ("error error", "again"),
        ("error error error", "fail"),
        ("out_of_memory device hung", "fail"),
        # What the task itself is wrong about does not.
        ("input", "fail"),
        ("exception", "fail"),
        ("error input", "fail"),
        ("storage", "fail"),
        # An attempt that ended through no fault of its task does not count.
        ("released", "again"),
        (times(50, "released"), "again"),
        ("error error released", "again"),
        ("error error released error", "fail"),
        # Whoever takes workers along is suspected, and then runs alone.
        ("crash", "again"),
        ("crash crash", "again"),
        ("crash crash crash", "alone"),
        ("crash crash crash crash", "quarantine"),
        # A plain SIGKILL is more often an operator.
        (times(5, "sigkill"), "again"),
        (times(6, "sigkill"), "alone"),
        (times(7, "sigkill"), "quarantine"),
        ("crash crash " + times(5, "sigkill"), "again"),  # each by its own count
        ("crash crash crash sigkill", "quarantine"),
        (times(6, "sigkill") + " crash", "quarantine"),
        # A suspect that ends otherwise is not quarantined for it, and goes on being alone.
        ("crash crash crash released", "alone"),
        ("crash crash crash error", "alone"),
        ("crash crash crash error error error", "fail"),
        ("crash crash crash released crash", "quarantine"),
        # Deaths are no failures, and failures no deaths.
        ("crash error crash error", "again"),
        ("error crash error crash error", "fail"),
        ("error error crash crash crash", "alone"),
    ],
)
def test_what_a_life_leads_to(causes: str, decision: Decision) -> None:
    assert lived(causes)[1] == decision


def test_rules_come_from_the_settings() -> None:
    once = Rules(max_attempts=1, crashes_before_quarantine=1, kills_before_quarantine=1)
    assert lived("error", once)[1] == "fail"
    for death in DEATHS:
        assert lived(death, once)[1] == "alone"
        assert lived(f"{death} {death}", once)[1] == "quarantine"
    patient = Rules(max_attempts=9)
    assert lived(times(8, "error"), patient)[1] == "again"
    assert lived(times(9, "error"), patient)[1] == "fail"


def test_company_is_never_blamed_for_a_death() -> None:
    """However many died with it: who is to blame shows when each has run alone."""
    history = FRESH
    for _ in range(100):
        history = history.plus("crash", alone=False)
    assert after(history, RULES) == "alone"


def test_a_history_knows_what_may_lie_in_the_task() -> None:
    assert FRESH.troubles == 0
    assert lived("released released")[0].troubles == 0
    assert lived("error crash sigkill hung released")[0].troubles == 4
    assert lived("released")[0].last == "released"


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_its_decision(cause: Cause) -> None:
    expected = "again" if cause in (*PASSING, *DEATHS, "released") else "fail"
    assert after(FRESH.plus(cause), RULES) == expected


@given(
    st.lists(st.sampled_from([cause for cause in CAUSES if cause != "released"]), min_size=20),
    st.builds(Rules, *[st.integers(1, 5)] * 3),
)
def test_no_task_is_tried_for_ever_or_given_up_unheard(causes: list[Cause], rules: Rules) -> None:
    history, decision, attempts = FRESH, "again", 0
    for cause in causes:
        was_alone = decision == "alone"
        history = history.plus(cause, was_alone)
        decision, attempts = after(history, rules), attempts + 1
        if decision == "quarantine":
            assert was_alone and cause in DEATHS
        elif decision != "fail":
            assert (decision == "alone") == is_suspect(history, rules)
        if decision in FINAL:
            break
    assert decision in FINAL
    deaths = rules.crashes_before_quarantine + rules.kills_before_quarantine
    assert attempts <= rules.max_attempts + deaths


@given(st.lists(st.sampled_from(CAUSES), max_size=12), st.integers(0, 12))
def test_a_released_attempt_changes_no_later_decision(causes: list[Cause], place: int) -> None:
    """Its task goes on where it was."""
    history = with_release = FRESH
    for number, cause in enumerate([*causes, "error"]):
        if number == place:
            with_release = with_release.plus("released")
        history, with_release = history.plus(cause), with_release.plus(cause)
    assert after(history, RULES) == after(with_release, RULES)
