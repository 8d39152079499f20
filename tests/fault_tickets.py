"""Processes that break at a point of `core.fault_points`, so many times at the most."""

from pathlib import Path

import pytest

from tests.conftest import LOCAL, Workplace

SPAWNED = {"start_method": "spawn"}  # settings of `workers`


def fault_environment(folder: Path, point: str, tickets: int) -> dict[str, str]:
    """What a process needs to break at `point`; each break takes one ticket from `folder`."""
    folder.mkdir(exist_ok=True)
    for ticket in folder.iterdir():
        ticket.unlink()
    for number in range(tickets):
        (folder / str(number)).touch()
    return {"FAULT_POINT": point, "FAULT_TICKETS": str(folder)}


def arm_in_children(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    point: str,
    tickets: int,
    workplace: Workplace = LOCAL,
) -> Path:
    """For workers of a generator in this process, born with it; returns the tickets' folder.

    Workers have to be `SPAWNED`: a fork has the faults that its server was born with.
    """
    tickets_folder = folder / "tickets"
    faults = fault_environment(tickets_folder, point, tickets)
    for name, value in faults.items():
        monkeypatch.setenv(name, value)
    workplace.arm(faults)
    return tickets_folder
