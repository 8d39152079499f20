"""GPUs that another Ray job has by a task and by a placement group, and what a run says of them."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.both_engines import shared_cluster
from tests.cluster.conftest import ClusterRun
from tests.cluster.ray_cluster import GPUS, LOOPBACK, RayCluster
from tests.conftest import PATIENCE, PROJECT, Project, simulated, wait_until

SLOW = 20.0  # seconds in which whoever was late must know: an agent is waited for for 60

OTHERS = """
import sys, time
from pathlib import Path
from cluster.ray_environment import before_import
before_import(sys.argv[1])
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

address, host, node, begun = sys.argv[1:]
ray.init(address=address, _node_ip_address=host, log_to_driver=False)
there = NodeAffinitySchedulingStrategy(node, soft=False)

@ray.remote(num_cpus=0, num_gpus=1, scheduling_strategy=there)
def train():
    Path(begun).touch()
    time.sleep(1000)

held = placement_group(
    [{"GPU": 1}], name="mine", strategy="STRICT_PACK", _soft_target_node_id=node
)
ray.get(held.ready())
ray.get(train.remote())
"""

LATE = """
import sys, time
from cluster.ray_environment import before_import
before_import(sys.argv[1])
import ray
from cluster.ray_state import list_nodes
from cluster.relay import GpusTaken, Relay
from tests.cluster.test_relays import CONNECT

address, host, node = sys.argv[1:]
ray.init(address=address, _node_ip_address=host, namespace="late", log_to_driver=False)
[place] = [each for each in list_nodes() if each.node_id == node]
began = time.monotonic()
try:
    Relay("n", place, 1, CONNECT, print, print).place()
except GpusTaken as error:
    print(f"{time.monotonic() - began:.1f} {error}")
"""


@pytest.fixture(scope="module")
def other_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """It has all GPUs of the first node."""
    ray_cluster = shared_cluster()
    begun = tmp_path_factory.mktemp("other") / "begun"
    node = ray_cluster.nodes[0].node_id
    job = started(OTHERS, ray_cluster.address, LOOPBACK, node, str(begun))
    wait_until(begun.exists, "the other job")
    yield
    job.kill()
    job.communicate()


def started(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


OWNER = re.compile(
    rf"job \w+ \(.+, started on {re.escape(LOOPBACK)}\): placement group mine, task train"
)


@pytest.mark.usefixtures("other_job")
def test_who_was_late_for_gpus_knows_at_once_and_says_who_has_them(ray_cluster: RayCluster) -> None:
    """It saw them free, and asks for them when they are taken already."""
    late = started(LATE, ray_cluster.address, LOOPBACK, ray_cluster.nodes[0].node_id)
    said, _ = late.communicate(timeout=PATIENCE)
    seconds, _, words = said.strip().partition(" ")
    assert float(seconds) < SLOW
    assert words.startswith("its GPUs were taken just now by") and OWNER.search(words)


@pytest.mark.usefixtures("other_job")
def test_a_run_does_without_gpus_of_others_and_says_whose_they_are(
    ray_cluster: RayCluster, project: Project
) -> None:
    at_work = ClusterRun(project, ray_cluster, 8, 0.05).start()
    at_work.check()
    said = f"{GPUS} of its {GPUS} GPUs are in use by other Ray jobs: "
    [line] = [line for line in at_work.run.errors.splitlines() if said in line]
    assert OWNER.search(line)
    assert len(at_work.workers_by_node()) == 1


@pytest.mark.usefixtures("other_job")
def test_a_run_that_counts_on_gpus_of_others_is_refused_with_their_owner(
    ray_cluster: RayCluster, project: Project
) -> None:
    file = project.write_tweets('[{"prompt": "a red house"}]')
    settings = simulated(engine="ray", ray={"address": ray_cluster.address})
    run = project.start([file, 2 * GPUS], settings)
    assert run.finish() == 2
    assert f"has {GPUS} free. Not used: " in run.errors and OWNER.search(run.errors)
