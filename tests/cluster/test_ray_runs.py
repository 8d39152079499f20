"""The command on a real Ray cluster of several nodes: whatever goes, each input has one record."""

import random
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import warm_bridge
from tests.both_engines import IN_FULL
from tests.cluster.conftest import ClusterRun
from tests.cluster.ray_cluster import RayCluster, hides, may_be_apart
from tests.conftest import PATIENCE, Project, going_on, wait_until, write_safetensors


def test_whatever_dies_each_input_has_one_record(ray_cluster: RayCluster, project: Project) -> None:
    """A worker, a node with all of its processes, and an agent are killed; a node joins."""
    at_work = ClusterRun(project, ray_cluster, 320, 0.05, held=True).start()
    first, second = ray_cluster.nodes
    wait_until(lambda: at_work.reaches(10), "the first pictures")
    bridge = ray_cluster.bridge(psutil.Process(at_work.run.process.pid))
    assert bridge.name() == warm_bridge.NAME, "it is no fork, and has imported all anew"
    random.choice(wait_until(lambda: ray_cluster.workers(first), "its workers")).kill()
    wait_until(lambda: at_work.reaches(30), "pictures after a worker's death")
    ray_cluster.kill(first)
    ray_cluster.add()
    wait_until(lambda: at_work.reaches(60), "pictures after a node's death")
    agent = ray_cluster.agent(second)
    assert ray_cluster.is_fork(agent)
    agent.kill()
    with going_on(partial(workers_of, ray_cluster)):
        at_work.check()
    assert len(at_work.workers_by_node()) >= 2
    assert "joined with 2 devices" in at_work.run.errors
    assert "lost: " in at_work.run.errors


def workers_of(cluster: RayCluster) -> list[psutil.Process]:
    """Of all nodes."""
    return [worker for node in list(cluster.nodes) for worker in cluster.workers(node)]


def test_a_node_that_is_cut_off_ends_its_workers_and_its_tasks_are_done_elsewhere(
    ray_cluster: RayCluster, project: Project
) -> None:
    """All of its processes are stopped for longer than the fence allows, and go on then."""
    rules: dict[str, Any] = {
        "ray": {"fence_timeout": 3},
        "scheduling": {"speculative_copies": False},
    }
    at_work = ClusterRun(project, ray_cluster, 120, 0.1, held=True, **rules).start()
    node, other = ray_cluster.nodes
    # From then on each node has tasks in hand, whichever it is that is cut off.
    drawing = re.compile(r"s on (\S+)/cpu")
    wait_until(lambda: len({*drawing.findall(at_work.run.errors)}) == 2, "pictures of both nodes")
    workers = ray_cluster.workers(node)
    agent = ray_cluster.agent(node)
    stopped = ray_cluster.stop(node)
    try:
        wait_until(lambda: "was lost" in at_work.run.errors, "the loss")
        with going_on(partial(ray_cluster.workers, other)):
            at_work.check()
        for process in stopped:
            process.resume()
        psutil.wait_procs([agent, *workers], timeout=PATIENCE)
        assert not any(process.is_running() for process in [agent, *workers])
    finally:
        ray_cluster.kill(node)  # Ray does not take it back


def test_a_killed_bridge_is_replaced_and_the_run_goes_on(
    ray_cluster: RayCluster, project: Project
) -> None:
    """Twice. Agents and workers that nobody hears any more are gone then."""
    at_work = ClusterRun(project, ray_cluster, 100, 0.1, held=True).start()
    main = psutil.Process(at_work.run.process.pid)
    for pictures in (8, 40):
        wait_until(partial(at_work.reaches, pictures), "pictures")
        agents = [ray_cluster.agent(node) for node in ray_cluster.nodes]
        theirs = [p for agent in agents for p in [agent, *agent.children(recursive=True)]]
        ray_cluster.bridge(main).kill()
        _, left = psutil.wait_procs(theirs, timeout=PATIENCE)
        assert left == []
    connected = "Connected to the cluster again"
    wait_until(lambda: at_work.run.errors.count(connected) == 2, "the next bridge")
    with going_on(partial(workers_of, ray_cluster)):
        at_work.check()
    assert at_work.run.errors.count(connected) == 2


@IN_FULL
def test_a_bridge_that_is_stopped_is_ended_and_replaced(
    ray_cluster: RayCluster, project: Project
) -> None:
    """As where its machine swaps: it neither speaks nor dies, and its agents' fences fall."""
    rules: dict[str, Any] = {"ray": {"fence_timeout": 2}}
    at_work = ClusterRun(project, ray_cluster, 60, 0.1, **rules).start()
    wait_until(lambda: at_work.reaches(8), "the first pictures")
    ray_cluster.bridge(psutil.Process(at_work.run.process.pid)).suspend()
    at_work.check()
    assert "SIGKILL" in at_work.run.errors
    assert "Connected to the cluster again" in at_work.run.errors


@pytest.mark.skipif(not may_be_apart(), reason="needs a mount namespace (root)")
def test_a_node_that_sees_no_shared_folder_takes_part_in_the_same_run(
    ray_cluster: RayCluster, project: Project, tmp_path: Path
) -> None:
    """It has the LoRA, and main its pictures, through Ray's object store."""
    lora = write_safetensors(tmp_path / "ink.safetensors")
    cache = Path(tempfile.mkdtemp(prefix="cache-", dir="/tmp"))
    hidden = ray_cluster.add_apart("hidden", hides(tmp_path))
    # The others would take most of a minute for all of it, until it has its file.
    fast = {"hidden/cpu0": 1.0, "hidden/cpu1": 1.0}
    slowness = {"slowness": {"cpu0": 20.0, "cpu1": 20.0, **fast}}
    try:
        at_work = ClusterRun(
            project,
            ray_cluster,
            80,
            0.1,
            {"lora_path": str(lora)},
            ray={"cache_dir": str(cache)},
            simulated=slowness,
        )
        at_work.start().check()
        assert at_work.workers_by_node()["hidden"] > 0
        assert len(list(cache.glob("*/ink.safetensors"))) == 1
    finally:
        hidden.end()
        shutil.rmtree(cache)
