"""Where one bridge to the cluster ends, the next one takes its place; not for ever."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster import lasting_link
from core.devices.device import Device
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from tests.cluster.relayed import PlayedBridge
from tests.conftest import PATIENCE, simulated, wait_until
from tests.stub_backend import StubBackend, StubWorker

SOON = 0.3  # seconds


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_link, "PAUSES", (0.01,))


class Nodes:
    """A generator whose workers are a test's, one on each node of a played cluster."""

    def __init__(self, folder: Path, names: list[str], **ray: Any) -> None:
        self._backends: list[tuple[str, StubBackend]] = []
        self._names = iter(names)
        self.bridge = PlayedBridge(self._backend, names, each=1, **ray)
        self.generator = MultiGPUImageGenerator(
            config=simulated(scheduling={"speculative_copies": False}),
            output_dir=folder,
            backend=self.bridge.backend,
        )
        self._executor = ThreadPoolExecutor(1)

    def _backend(self) -> StubBackend:
        name = next(self._names, None)
        if name is None:  # the next bridge
            self._names = iter(self.bridge.names)
            name = next(self._names)
        self._backends.append((name, StubBackend()))
        return self._backends[-1][1]

    @property
    def waiting(self) -> int:
        """Tasks that wait for a worker."""
        return sum(model.waiting for model in self.generator.snapshot().result(PATIENCE).models)

    def submit(self, tasks: int) -> "Future[list[Result]]":
        given = [{"prompt": f"{i}", "output_path": f"{i}.png"} for i in range(tasks)]
        return self._executor.submit(self.generator.generate_batch, given)

    def worker(self, bridge: int, node: str = "a") -> StubWorker:
        """The worker of a node, after so many bridges have died."""

        def found() -> list[StubBackend]:
            return [backend for name, backend in self._backends if name == node][bridge:]

        backend: StubBackend = wait_until(found, "the node")[0]
        return backend.worker(f"{node}/cpu0").serve()


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Nodes]]:
    made: list[Nodes] = []

    def make(*names: str, **ray: Any) -> Nodes:
        devices = [Device("cpu", 0, "", node=name) for name in names]
        monkeypatch.setattr("core.engine_choice.choose_devices", lambda *_: devices)
        made.append(Nodes(tmp_path / "out", [*names], **ray))
        return made[-1]

    yield make
    for one in made:
        one.generator.stop(at_once=True)


def test_what_was_leased_when_the_bridge_died_is_done_again_without_blame(
    nodes: Callable[..., Nodes],
) -> None:
    """Three times, which is more than a task may cost its workers by itself."""
    world = nodes("a")
    batch = world.submit(2)
    for start in range(3):
        world.worker(start).hear_lease()
        world.bridge.dies()
        # It is recorded first that the lease has ended; a worker that is there would get the other.
        wait_until(lambda: world.waiting == 2, "the task's return to the queue")
    world.worker(3).finish_all(2)
    first, second = batch.result(PATIENCE)
    assert (first.status, second.status) == ("done", "done")
    assert (first.attempts, second.attempts) == (4, 1)
    assert world.bridge.starts == 4


def test_a_node_that_the_next_bridge_does_not_find_is_lost_and_its_tasks_are_done_elsewhere(
    nodes: Callable[..., Nodes],
) -> None:
    world = nodes("a", "b")
    batch = world.submit(2)
    for name in ("a", "b"):
        world.worker(0, name).hear_lease()
    world.bridge.names = ["a"]
    world.bridge.dies()
    world.worker(1).finish_all(2)
    assert {(result.status, result.worker) for result in batch.result(PATIENCE)} == {
        ("done", "a/cpu0")
    }
    states = {w.name: w.state for w in world.generator.snapshot().result(PATIENCE).workers}
    assert states["b/cpu0"] == "given up"


def test_a_bridge_that_dies_again_and_again_is_started_no_more_and_the_run_says_so(
    nodes: Callable[..., Nodes],
) -> None:
    world = nodes("a")
    batch = world.submit(1)
    for start in range(lasting_link.MOST_ENDS + 1):
        world.worker(start).hear_lease()
        world.bridge.dies()
    [result] = batch.result(PATIENCE)
    assert result.status == "failed"
    said = f"the connection to the cluster has ended by a test. It has ended {start + 1} times"
    assert said in str(result.error)


def test_a_bridge_that_cannot_be_started_for_a_moment_is_started_then(
    nodes: Callable[..., Nodes],
) -> None:
    """As where the disk was full, or there were too many threads or open files."""
    world = nodes("a")
    batch = world.submit(1)
    world.worker(0).hear_lease()
    world.bridge.cannot_start = [OSError(28, "No space left on device"), RuntimeError("no thread")]
    world.bridge.dies()
    world.worker(1).finish_all(1)
    [result] = batch.result(PATIENCE)
    assert result.status == "done" and world.bridge.cannot_start == []


def test_a_bridge_that_cannot_be_started_again_and_again_ends_the_run_with_the_reason(
    nodes: Callable[..., Nodes],
) -> None:
    world = nodes("a")
    batch = world.submit(1)
    world.worker(0).hear_lease()
    world.bridge.cannot_start = [RuntimeError("no thread")] * lasting_link.MOST_ENDS
    world.bridge.dies()
    [result] = batch.result(PATIENCE)
    assert result.status == "failed"
    assert "has ended and another one could not be started: no thread" in str(result.error)


def test_a_keeper_of_bridges_that_breaks_down_says_so(nodes: Callable[..., Nodes]) -> None:
    world = nodes("a")
    batch = world.submit(1)
    world.worker(0).hear_lease()
    world.bridge.describe_end = lambda: 1 // 0  # type: ignore[method-assign, assignment, return-value]
    world.bridge.dies()
    [result] = batch.result(PATIENCE)
    assert result.status == "failed" and "ZeroDivisionError" in str(result.error)


def test_a_bridge_that_says_nothing_any_more_is_ended_and_replaced(
    nodes: Callable[..., Nodes],
) -> None:
    """A played one gives no sign of life by itself."""
    world = nodes("a", fence_timeout=SOON)
    batch = world.submit(1)
    wait_until(lambda: world.bridge.starts > 1, "the next bridge")
    world.generator.stop(at_once=True)
    assert batch.result(PATIENCE)[0].status == "interrupted"


def test_what_a_bridge_left_that_died_while_it_looked_whether_a_folder_is_shared_is_removed(
    nodes: Callable[..., Nodes], tmp_path: Path
) -> None:
    world = nodes("a")
    batch = world.submit(1)
    world.worker(0).hear_lease()
    for name in ("1", "1-seen"):
        (tmp_path / "out" / f".partial-probe-{name}").write_text("1")
    world.bridge.dies()
    world.worker(1).finish_all(1)
    assert batch.result(PATIENCE)[0].status == "done"
    world.generator.stop()
    assert not list((tmp_path / "out").glob(".partial*"))


def test_a_run_that_is_stopped_while_no_bridge_is_there_ends_at_once(
    nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting_link, "PAUSES", (10 * PATIENCE,))
    world = nodes("a")
    batch = world.submit(2)
    world.worker(0).hear_lease()
    world.bridge.dies()
    wait_until(lambda: not world.bridge.backend.ready, "the loss")
    world.generator.stop(at_once=True)
    assert {result.status for result in batch.result(PATIENCE)} == {"interrupted"}


def test_tasks_fail_where_no_bridge_comes_for_as_long_as_a_node_is_waited_for(
    nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting_link, "PAUSES", (10 * PATIENCE,))
    world = nodes("a", node_timeout=SOON)
    batch = world.submit(1)
    world.worker(0).hear_lease()
    world.bridge.dies()
    [result] = batch.result(PATIENCE)
    assert result.status == "failed" and f"no other came in {SOON:g} s" in str(result.error)
