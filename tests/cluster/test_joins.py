"""Machines that come, go and are drained, as the engine sees them."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.run_summary import end_lines
from core.devices.device import Device
from core.engine.backend import Joined, Leaves, Lost, NotUsed
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.status.run_status import RunStatus
from core.tasks import Result
from tests.cluster.relayed import PlayedBridge
from tests.conftest import PATIENCE, simulated, wait_until
from tests.inline_backend import InlineBackend
from tests.stub_backend import StubBackend

NODE = tuple(Device("cpu", i, "", node="b") for i in range(2))


class World:
    """A generator with one local worker, `cpu0`, and machines that a test plays."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.backend = StubBackend()
        settings = {"scheduling": {"speculative_copies": False}, **settings}
        self.generator = MultiGPUImageGenerator(
            1, config=simulated(**settings), output_dir=folder, backend=self.backend
        )
        self._executor = ThreadPoolExecutor(1)

    def submit(self, tasks: int | list[dict[str, Any]]) -> Any:
        if isinstance(tasks, list):
            return self._executor.submit(self.generator.generate_batch, tasks)
        given = [{"prompt": f"{i}", "output_path": f"{i}.png"} for i in range(tasks)]
        return self._executor.submit(self.generator.generate_batch, given)

    def report(self, report: Any) -> None:
        self.backend._reports.put(report)

    def states(self) -> dict[str, str]:
        workers = self.generator.snapshot().result(PATIENCE).workers
        return {worker.name: worker.state for worker in workers}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.generator.stop(at_once=True)


def by_worker(results: list[Result]) -> Counter[str | None]:
    assert {result.status for result in results} == {"done"}
    return Counter(result.worker for result in results)


def test_workers_of_a_machine_that_joins_take_tasks_that_wait(world: World) -> None:
    batch = world.submit(3)
    here = world.backend.worker("cpu0").serve()
    first = here.hear_lease()
    world.report(Joined(NODE))
    others = [world.backend.worker(slot).serve() for slot in ("b/cpu0", "b/cpu1")]
    held = [(here, first), *((other, other.hear_lease()) for other in others)]
    for worker, lease in held:
        worker.finish(lease)
        worker.leave_when_asked()
    assert by_worker(batch.result(PATIENCE)) == {"cpu0": 1, "b/cpu0": 1, "b/cpu1": 1}


def test_a_machine_that_is_to_go_finishes_what_it_has_and_gets_nothing_more(world: World) -> None:
    batch = world.submit(4)
    here = world.backend.worker("cpu0").serve()
    lease = here.hear_lease()
    world.report(Joined(NODE[:1]))
    there = world.backend.worker("b/cpu0").serve()
    theirs = there.hear_lease()
    world.report(Leaves("b", "it is being drained"))
    world.backend.let_the_engine_act()
    there.finish(theirs)
    there.leave_when_asked()
    wait_until(lambda: world.states()["b/cpu0"] == "drained", "the drain")
    here.finish(lease)
    here.finish_all(2)
    assert by_worker(batch.result(PATIENCE)) == {"cpu0": 3, "b/cpu0": 1}


def test_what_a_lost_machine_had_is_done_elsewhere_and_nobody_is_blamed(world: World) -> None:
    """Seven times, which is more than any task may cost its workers by itself."""
    batch = world.submit(2)
    here = world.backend.worker("cpu0").serve()
    lease = here.hear_lease()
    for life in range(1, 8):
        world.report(Joined(NODE[:1]))
        there = world.backend.worker("b/cpu0", life).serve()
        there.hear_lease()
        there.die(-9, blameless=True)
        world.report(Lost("b", "the node is gone"))
        wait_until(lambda: world.states()["b/cpu0"] == "given up", "the loss")
    here.finish(lease)
    here.finish_all(1)
    assert by_worker(batch.result(PATIENCE)) == {"cpu0": 2}


def test_a_machine_that_comes_again_without_having_been_lost_has_the_devices_that_it_has_now(
    world: World,
) -> None:
    batch = world.submit(3)
    here = world.backend.worker("cpu0").serve()
    lease = here.hear_lease()
    world.report(Joined(NODE))
    workers = [world.backend.worker(slot).serve() for slot in ("b/cpu0", "b/cpu1")]
    for there in workers:
        there.hear_lease()
    world.backend.ready = False  # nobody can reach it
    for there in workers:
        there.die(-9, blameless=True)
    now = replace(NODE[0], mask="another")
    world.report(Joined((now,)))
    world.backend.becomes_ready()
    there = world.backend.worker("b/cpu0", 2)
    assert there.device == now
    wait_until(lambda: world.states()["b/cpu1"] == "given up", "the loss")
    theirs = there.serve().hear_lease()
    here.finish(lease)
    here.finish_all(1)
    there.finish(theirs)
    there.leave_when_asked()
    assert by_worker(batch.result(PATIENCE)) == {"cpu0": 2, "b/cpu0": 1}


def test_a_machine_with_too_few_gpus_for_a_worker_stays_idle_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [Device("cuda", i, str(i), node="a") for i in range(2)]
    monkeypatch.setattr("core.engine_choice.choose_devices", lambda *_: pair)
    world = World(tmp_path, device="auto", gpus_per_worker=2)
    batch = world.submit(2)
    here = world.backend.worker("a/gpu0+1").serve()
    lease = here.hear_lease()
    world.report(Joined((Device("cuda", 0, "0", node="b"),)))
    world.backend.let_the_engine_act()
    here.finish(lease)
    here.finish_all(1)
    assert by_worker(batch.result(PATIENCE)) == {"a/gpu0+1": 2}


def test_the_last_edit_of_a_lost_machine_is_made_by_one_that_is_left(tmp_path: Path) -> None:
    """Workers that are gone do not count as those that have its model."""
    Image.new("RGB", (32, 32)).save(tmp_path / "s.png")
    world = World(tmp_path / "out", editor={"model": "simulated"})
    edit = {"instruction": "x", "source_images": [str(tmp_path / "s.png")], "output_path": "0.png"}
    batch = world.submit([{"kind": "EditTask", **edit}])
    here = world.backend.worker("cpu0").serve()
    here.hear_lease()
    world.report(Joined(NODE))
    world.backend.let_the_engine_act()
    here.die(-9, blameless=True)
    world.report(Lost("", "the node is gone"))
    world.backend.worker("b/cpu0").serve().finish_all(1)
    assert by_worker(batch.result(PATIENCE)) == {"b/cpu0": 1}
    world.generator.stop(at_once=True)


def test_when_the_last_machine_is_lost_its_tasks_fail_and_say_why(world: World) -> None:
    batch = world.submit(2)
    here = world.backend.worker("cpu0").serve()
    here.hear_lease()
    here.die(-9, blameless=True)
    world.report(Lost("", "the cluster is gone"))
    results = batch.result(PATIENCE)
    assert {result.status for result in results} == {"failed"}
    assert "No worker is left" in str(results[0].error)
    assert "the cluster is gone" in str(results[0].error)


def test_a_machine_that_joins_after_the_last_one_was_lost_takes_new_tasks(world: World) -> None:
    batch = world.submit(1)
    here = world.backend.worker("cpu0").serve()
    here.hear_lease()
    here.die(-9, blameless=True)
    world.report(Lost("", "the cluster is gone"))
    assert batch.result(PATIENCE)[0].status == "failed"
    world.report(Joined(NODE[:1]))
    world.backend.let_the_engine_act()
    batch = world.submit(1)
    there = world.backend.worker("b/cpu0").serve()
    there.finish_all(1)
    assert by_worker(batch.result(PATIENCE)) == {"b/cpu0": 1}


def test_a_run_whose_last_node_is_lost_goes_on_with_the_next_one(tmp_path: Path) -> None:
    bridge = PlayedBridge(InlineBackend, ["a"])
    bridge.loses("a")
    wait_until(lambda: not bridge.backend.ready, "the loss")
    generator = MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, backend=bridge.backend
    )
    with generator, ThreadPoolExecutor(1) as executor:
        tasks = [{"prompt": f"{i}", "output_path": f"{i}.png"} for i in range(4)]
        batch = executor.submit(generator.generate_batch, tasks)
        wait_until(lambda: generator.snapshot().result(PATIENCE).models, "the model")
        assert not batch.done()
        bridge.joins("b")
        assert {result.status for result in batch.result(PATIENCE)} == {"done"}


def test_an_engine_that_is_started_anew_is_told_how_the_nodes_have_changed() -> None:
    bridge = PlayedBridge(InlineBackend, ["a", "b"])
    try:
        bridge.backend.expect({"b", "c"})
        bridge.backend.does_without(["a: 1 of its 3 GPUs are in use by other Ray jobs"])
        lost, joined, not_used = bridge.backend.poll(PATIENCE)
        assert isinstance(lost, Lost) and isinstance(joined, Joined)
        assert (lost.node, joined.devices[0].node) == ("c", "a")
        assert isinstance(not_used, NotUsed) and not_used.node == "a", "behind what it is about"
    finally:
        bridge.backend.close()


def test_what_is_not_used_stands_in_the_status_and_at_the_end_until_it_joins(world: World) -> None:
    why = {"a": "a: it has other software", "b": "b: 2 of its 4 GPUs are in use by other Ray jobs"}
    for node, reason in why.items():
        world.report(NotUsed(node, reason))
    batch = world.submit(1)
    here = world.backend.worker("cpu0").serve()
    wait_until(lambda: world.generator.status().not_used == tuple(why.values()), "both reasons")
    world.report(Joined(NODE))
    wait_until(lambda: world.generator.status().not_used == (why["a"],), "one has joined")
    here.finish(here.hear_lease())
    batch.result(PATIENCE)
    status = world.generator.status()
    assert status.as_json()["not_used"] == [why["a"]]
    assert RunStatus.from_json(status.as_json()).not_used == (why["a"],)
    assert f"not used: {why['a']}" in end_lines(status)
    world.generator.stop(at_once=True)
    batch = world.submit([{"prompt": "again", "output_path": "again.png"}])
    here = world.backend.worker("cpu0", 2).serve()
    assert world.generator.status().not_used == (), "what a new engine does without it says anew"
    here.finish(here.hear_lease())
    batch.result(PATIENCE)
