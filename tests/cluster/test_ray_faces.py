"""The daemon on a real Ray cluster, whose nodes and workers are drained."""

from collections import Counter
from pathlib import Path

import httpx2

from tests.cluster.ray_cluster import RayCluster
from tests.conftest import wait_until
from tests.server.conftest import Daemon

TASKS = 60
SIMULATED = {"seconds_per_megapixel_step": 50.0}  # 0.2 s a picture of 64 x 64


def states(client: httpx2.Client) -> dict[str, str]:
    """State of each worker, by its name."""
    workers = client.get("/v1/workers").raise_for_status().json()["data"]
    return {worker["id"]: worker["status"] for worker in workers}


def test_a_daemon_serves_the_gpus_of_all_nodes_and_loses_no_task_to_a_drained_one(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    """A worker is drained by the daemon's own API, and a node by Ray's."""
    ray = {"address": ray_cluster.address}
    daemon = Daemon(tmp_path, engine="ray", ray=ray, simulated=SIMULATED)
    try:
        with daemon.start().client() as client:
            size = {"width": 64, "height": 64, "num_inference_steps": 1}
            tasks = [{"prompt": f"{i}", **size} for i in range(TASKS)]
            answer = client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status()
            place = f"/v1/jobs/{answer.json()['id']}"
            wait_until(lambda: list(states(client).values()).count("ready") == 4, "all workers")
            assert len({name.partition("/")[0] for name in states(client)}) == 2
            ray_cluster.drain(1)

            def left(workers: int) -> list[str]:
                """Workers that take tasks, once there are so many."""
                gone = ("drained", "given up")
                names = [name for name, state in states(client).items() if state not in gone]
                return names if len(names) == workers else []

            last = wait_until(lambda: left(2), "a node to be drained")[-1]
            client.post(f"/v1/workers/{last}/drain").raise_for_status()
            wait_until(lambda: left(1), "a worker to be drained")
            open_ = ("queued", "running")
            wait_until(lambda: client.get(place).json()["status"] not in open_, "the job")
            results = client.get(f"{place}/results").raise_for_status().json()["data"]
        assert Counter(result["status"] for result in results) == {"done": TASKS}
        assert daemon.stop() == 0
    finally:
        daemon.end()
