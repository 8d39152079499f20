"""Tests of what users see, on both engines: workers of this machine, and of a Ray cluster.

A test says so by a mark, a file by `pytestmark`. It finds workers and settings by its fixture
`workplace`, as `project`, `daemon` and the engines of `tests/chaos` do. `pytest -m ray` runs all
that there is of them on Ray.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from core.engine.backend import WorkerBackend
from tests import warm_bridge
from tests.chaos.scale import FULL
from tests.cluster.ray_cluster import RayCluster
from tests.conftest import LOCAL, Workplace, fork_server, worker_processes

NAME = "both_engines"
# On Ray as well by `make chaos` (CHAOS=full) and `-m ray`, or always.
ON_BOTH = pytest.mark.both_engines
ALWAYS_ON_BOTH = pytest.mark.both_engines(always=True)
# Of tests on the cluster alone: by `make chaos` and `-m ray` only, as it takes longer than it says
# about what changes from day to day.
IN_FULL = pytest.mark.ray(in_full=True)
NODES = 2
GRACE = 3.0  # seconds
REPETITIONS = 5  # on the cluster, where each takes several times as long
HELPERS = ("ray::Agent", "multiprocessing", "forkserver")  # of runs, in names and command lines
ON_RAY = re.compile(r"/test_ray_|[\[-]ray[]-]")  # in the name of a test


class RayWorkplace(Workplace):
    """A Ray cluster, on which one run is at work at a time."""

    grace = GRACE

    def __init__(self, cluster: RayCluster) -> None:
        self.cluster = cluster
        self._is_armed = False
        self.settings = {"engine": "ray", "ray": {"address": cluster.address}}

    def inline(self) -> WorkerBackend | None:
        return None

    def agents(self) -> list[psutil.Process]:
        """Agents of all nodes, as far as they are there."""
        agents = [self.cluster.agent_now(node) for node in self.cluster.nodes]
        return [agent for agent in agents if agent is not None]

    def workers(self, main: int) -> list[psutil.Process]:
        return [worker for agent in self.agents() for worker in worker_processes(agent.pid)]

    def fork_server(self, main: int) -> psutil.Process | None:
        found = [fork_server(agent.pid) for agent in self.agents()]
        return next((server for server in found if server is not None), None)

    def others(self) -> list[psutil.Process]:
        found = {*self.agents()}
        for process in self.cluster.left():
            try:
                line = " ".join([process.name(), *process.cmdline()])
            except psutil.Error:
                continue
            if any(word in line for word in HELPERS):
                found.add(process)
        return [*found]

    def arm(self, faults: Mapping[str, str]) -> None:
        """By other nodes: what runs on one has its environment."""
        self._is_armed = bool(faults)
        for node in list(self.cluster.nodes):
            self.cluster.kill(node)
            self.cluster.add(environment=faults)

    def disarm(self) -> None:
        if self._is_armed:
            self.arm({})


class _Shared:
    """The cluster of this process, from the first test on it to the last; whole for each."""

    workplace: RayWorkplace | None = None

    def get(self) -> RayWorkplace:
        if self.workplace is None:
            self.workplace = RayWorkplace(RayCluster(NODES))
        self.workplace.cluster.have(NODES)
        self.workplace.cluster.settle()
        return self.workplace

    def close(self) -> None:
        if self.workplace is not None:
            self.workplace.cluster.close()
        self.workplace = None


_shared = _Shared()


@pytest.fixture
def workplace(request: pytest.FixtureRequest) -> Iterator[Workplace]:
    """Whose workers do the work: this machine's but where a mark has it be a cluster's, too."""
    if getattr(request, "param", "local") == "local":
        yield LOCAL
    else:
        workplace = _shared.get()
        with warm_bridge.of_this_process():
            yield workplace
        workplace.disarm()


@pytest.fixture
def ray_cluster() -> RayCluster:
    """Two nodes of two logical GPUs each: a cluster that tests may do to what they like."""
    return shared_cluster()


def shared_cluster() -> RayCluster:
    """That cluster, for what several tests of a module find there."""
    return _shared.get().cluster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = [*metafunc.definition.iter_markers(NAME)]
    if marks:
        assert "workplace" in metafunc.fixturenames, f"{metafunc.function} works nowhere"
        ray = _all_of_it(metafunc.config) or any("always" in mark.kwargs for mark in marks)
        names = [pytest.param("local"), *([pytest.param("ray", marks=pytest.mark.ray)] * ray)]
        metafunc.parametrize("workplace", names, indirect=True)


def _all_of_it(config: pytest.Config) -> bool:
    return FULL or config.option.markexpr == "ray"


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    if "ray_cluster" in getattr(item, "fixturenames", ()):
        item.add_marker("ray")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All tests on the cluster come one after another, and first, as these take long."""
    too_many = [item for item in items if on_ray(item) and _repetition(item) >= REPETITIONS]
    if not _all_of_it(config):
        too_many += [item for item in items if _is_long(item) and item not in too_many]
    if too_many:
        config.hook.pytest_deselected(items=too_many)
        items[:] = [item for item in items if item not in too_many]
    items.sort(key=lambda item: not on_ray(item))


def _is_long(item: pytest.Item) -> bool:
    return any(mark.kwargs.get("in_full") for mark in item.iter_markers("ray"))


def _repetition(item: pytest.Item) -> int:
    """Which one it is of tests that differ by chance alone."""
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params if callspec is not None else {}
    return int(parameters.get("seed", parameters.get("_repeat", 0)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Take the cluster down with the last test on it."""
    if nextitem is None or not on_ray(nextitem):
        _shared.close()


def on_ray(item: pytest.Item) -> bool:
    return item.get_closest_marker("ray") is not None


class OneCluster(LoadFileScheduling):  # type: ignore[misc]
    """Gives each file to one process, and all tests on the cluster, whosesoever, to one as well."""

    def _split_scope(self, nodeid: str) -> str:
        return "on Ray" if ON_RAY.search(nodeid) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    by_file = config.getvalue("dist") == "loadfile"
    return OneCluster(config, log) if by_file and not _all_of_it(config) else None
