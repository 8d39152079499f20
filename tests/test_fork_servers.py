"""Which workers share a fork server, and what each of them is a fork of."""

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from core.processes.fork_server import FORKSERVER, Keeper, Keepers
from core.processes.process_start import new_process
from tests.conftest import PATIENCE, wait_until

LOADED_IN_PARALLEL = {"HF_ENABLE_PARALLEL_LOADING": "1"}


def test_workers_share_a_server_unless_what_it_imports_or_its_environment_differs() -> None:
    keepers = Keepers()
    models = keepers.keeper(simulated=False, environment={})
    assert keepers.keeper(simulated=False, environment={}) is models
    parallel = keepers.keeper(simulated=False, environment=LOADED_IN_PARALLEL)
    assert parallel is not models
    assert keepers.keeper(simulated=False, environment=LOADED_IN_PARALLEL) is parallel
    simulated = keepers.keeper(simulated=True, environment=None)
    assert simulated not in (models, parallel)
    assert keepers.keeper(simulated=True, environment=None) is simulated


def test_workers_that_heed_no_environment_take_the_server_that_is_there() -> None:
    keepers = Keepers()
    parallel = keepers.keeper(simulated=False, environment=LOADED_IN_PARALLEL)
    assert keepers.keeper(simulated=False, environment=None) is parallel


@pytest.fixture
def two_servers() -> Iterator[list[Keeper]]:
    """Of simulated devices, whose environments differ; both have imported what they need."""
    keepers = [Keeper({"NUMBER": str(number)}) for number in range(2)]
    servers = [keeper.server("simulated").result(PATIENCE) for keeper in keepers]
    yield keepers
    for server in servers:
        if server is not None and server.alive:
            os.kill(server.pid, signal.SIGKILL)


def tell(writer: Connection) -> None:
    writer.send((os.getppid(), os.environ["NUMBER"]))


def born_of(keeper: Keeper) -> tuple[int, str]:
    """The server that a process is a fork of, and its environment's number."""
    reader, writer = FORKSERVER.Pipe(duplex=False)
    keeper.start(new_process(FORKSERVER, tell, (writer,), "telling"))
    writer.close()
    found: tuple[int, str] = reader.recv()
    reader.close()
    return found


def test_each_process_is_a_fork_of_the_server_that_it_was_asked_of(
    two_servers: list[Keeper],
) -> None:
    pids = [server.pid for k in two_servers if (server := k.server("simulated").result())]
    assert len(set(pids)) == 2
    for number in (0, 1, 1, 0):
        assert born_of(two_servers[number]) == (pids[number], str(number))


def test_the_end_of_a_server_is_none_of_another_ones(two_servers: list[Keeper]) -> None:
    first, second = (keeper.server("simulated").result() for keeper in two_servers)
    assert first is not None and second is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not first.alive, "its end")
    assert second.alive and born_of(two_servers[1]) == (second.pid, "1")
    again = two_servers[0].server("simulated").result(PATIENCE)
    assert again is not None and again.pid != first.pid
    assert born_of(two_servers[0]) == (again.pid, "0")


def test_a_fork_of_the_program_begins_anew_and_leaves_the_servers_to_it(
    two_servers: list[Keeper], tmp_path: Path
) -> None:
    known = two_servers[0].server("simulated").result()
    assert known is not None
    said, child = tmp_path / "said", os.fork()
    if not child:
        try:
            two_servers[0].forget_the_parents()
            names = [thread.name for thread in threading.enumerate()]
            own = two_servers[0].server("simulated").result(PATIENCE)
            said.write_text(f"{'fork-server' in names} {own is not None and own.pid != known.pid}")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert said.read_text() == "False True"
    assert known.alive and born_of(two_servers[0]) == (known.pid, "0")


def tell_waiting(writer: Connection) -> None:
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    writer.send({name: os.environ[name] for name in names if name in os.environ})


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({}, {"GOMP_SPINCOUNT": "5000"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_of_a_worker_soon_sleep_as_they_wait_unless_the_user_says_otherwise(
    chosen: dict[str, str], told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that spin on a busy machine take most of their CPU time from each other."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    keeper = Keeper({})
    server = keeper.server("simulated").result(PATIENCE)
    reader, writer = FORKSERVER.Pipe(duplex=False)
    keeper.start(new_process(FORKSERVER, tell_waiting, (writer,), "telling"))
    writer.close()
    try:
        assert told.items() <= reader.recv().items()  # the tests' own import adds its policy
    finally:
        reader.close()
        if server is not None and server.alive:
            os.kill(server.pid, signal.SIGKILL)
