"""What is imported once for all tests: else every process, or every command, imports all of it."""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.engine.backend import Report, Said
from core.messages import Log
from core.processes.local_backend import LocalBackend
from core.settings import load_settings
from tests import births, rewritten_tests, warm_server, warm_tests
from tests.conftest import COMMAND, PATIENCE, WARM, Project, simulated, worker_processes
from tests.warm_commands import WarmCommand
from tests.wayward_workers import tell_surroundings


@pytest.mark.parametrize(
    "name", sorted({*warm_tests.IMPORTED, *warm_server.COMMANDS, *births.SIMULATED})
)
def test_it_is_there(name: str) -> None:
    assert find_spec(name) is not None


def test_a_command_is_a_fork_of_what_has_imported_it(project: Project) -> None:
    run = project.execute(COMMAND, ["--help"])
    assert isinstance(run.process, WarmCommand), WARM.changed()
    assert run.finish() == 0 and "usage: " in run.output


@pytest.fixture
def changed_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as its start has not left it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLOUR", "grün")
    umask, limits = os.umask(0o027), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, limits[1]))
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    yield
    os.umask(umask)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGHUP, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_a_spawned_worker_is_a_fork_that_only_its_name_tells_from_a_new_interpreter(
    changed_surroundings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawned() -> tuple[str, dict[str, Any]]:
        """The worker's name, and what it tells."""
        rules = load_settings(simulated()).supervision
        backend = LocalBackend("spawn", rules, target=tell_surroundings)
        model = ModelChoice("simulated", "simulated", "why")
        device = Device("cpu", 0, "")
        spec = spec_for(device, "generate", model, load_settings(simulated()), 1)
        backend.start("cpu0", device, spec)
        [process] = worker_processes(os.getpid())
        name, reports = process.name(), list[Report]()
        while not reports:
            reports += backend.poll(PATIENCE)
        backend.close()
        [report] = reports
        assert isinstance(report, Said) and isinstance(report.message, Log), report
        return name, json.loads(report.message.text)

    name, told = spawned()
    assert name == births.SPAWNED
    assert told["environment"]["COLOUR"] == "grün"
    monkeypatch.setattr(births.Waiting, "bear", lambda waiting, birth: None)
    new, as_new = spawned()
    assert new != births.SPAWNED
    assert told == as_new


def test_assertions_are_rewritten_before_any_process_imports_them_and_nothing_is_run(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    file = tmp_path / "test_a.py"
    file.write_text("raise ValueError\nassert False\n")
    rewritten_tests.write_bytecode(pytestconfig, [file])
    [written] = (tmp_path / "__pycache__").glob("test_a.*-pytest-*.pyc")
    made = written.stat().st_mtime_ns
    rewritten_tests.write_bytecode(pytestconfig, [file])
    assert written.stat().st_mtime_ns == made, "what is there is read"
