"""Nodes, agents, workers and drivers of a Ray cluster die, or are cut off, at random moments.

In the normal tests `tests/cluster` has a little of it.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from tests.both_engines import RayWorkplace
from tests.chaos.checks import judge, judge_ledger, pictures_to_draw
from tests.chaos.engines import Hang, RealEngine
from tests.chaos.scale import FULL
from tests.chaos.verdict import Verdict
from tests.cluster.ray_cluster import RayCluster

NODES = 3
FENCE = 3.0  # seconds
Report = Callable[[Verdict], Verdict]
Victim = Literal["node", "agent", "worker", "driver", "cut off"]


class ClusterEngine(RealEngine):
    """The command on all GPUs of a Ray cluster of its own, whose nodes come and go."""

    def __init__(self, folder: Path, cluster: RayCluster, tasks: int, seconds: float) -> None:
        self.cluster = cluster
        workplace = RayWorkplace(cluster)
        self.agents = workplace.agents
        rate = seconds / (64 * 64 / 1e6)
        size = {"num_inference_steps": 1}
        given = [{**task, **size} for task in pictures_to_draw(tasks)]
        super().__init__(
            folder,
            given,
            2 * NODES,
            workplace,
            simulated={"seconds_per_megapixel_step": rate, "jitter": 0.5},
            ray={"fence_timeout": FENCE, "node_timeout": 120},
            supervision={"restarts_before_retirement": 100},
        )

    def start(self, *arguments: str) -> None:
        line: list[str | int | Path] = [self.file, *arguments]  # on all GPUs that there are
        self.run = self.project.start(line, self.settings)


def attack(
    engine: ClusterEngine, victims: Mapping[Victim, int], rng: random.Random, verdict: Verdict
) -> None:
    """Let them die one after the other, each at a moment of its own, until the command ends."""
    whom = [victim for victim, count in victims.items() for _ in range(count)]
    rng.shuffle(whom)
    count = len(engine.tasks)
    moments = sorted(rng.choices(range(int(count * 0.9)), k=len(whom)))
    engine.start()
    try:
        for victim, moment in zip(whom, moments, strict=True):
            due = partial(_at_work, engine, moment)
            struck = False
            while not struck and engine.wait(due):
                struck = _strike(engine, victim, rng, verdict)
            verdict.attempts += struck
        engine.wait()
        verdict.found("exit code", engine.process.returncode != 0)
    except Hang:
        verdict.found("hang")


def _at_work(engine: ClusterEngine, drawn: int) -> bool:
    return engine.drawn() >= drawn and bool(engine.workers())


def _strike(engine: ClusterEngine, victim: Victim, rng: random.Random, verdict: Verdict) -> bool:
    cluster = engine.cluster
    with suppress(psutil.NoSuchProcess, IndexError):
        if victim == "node":
            cluster.kill(rng.choice(cluster.nodes))
            cluster.add()
        elif victim == "agent":
            rng.choice(engine.agents()).kill()
        elif victim == "worker":
            rng.choice(engine.workers()).kill()
        elif victim == "cut off":
            _cut_off(engine, rng.choice(cluster.nodes), verdict)
        else:
            if engine.ended:
                return False
            engine.kill_main()
            verdict.found("orphan", len(engine.orphans()))
            engine.start()
        return True
    return False


def _cut_off(engine: ClusterEngine, node: Any, verdict: Verdict) -> None:
    """Stop a node for longer than the fence allows; of what goes on then, all must end."""
    workers = engine.cluster.workers(node)
    stopped = engine.cluster.stop(node)
    psutil.wait_procs(workers, timeout=3 * FENCE)  # nobody: it is the time that counts
    for process in stopped:
        with suppress(psutil.Error):
            process.resume()
    _, left = psutil.wait_procs(workers, timeout=15)
    verdict.found("orphan", len(left))
    engine.cluster.kill(node)
    engine.cluster.add()


def run_attack(
    folder: Path, tasks: int, seconds: float, victims: Mapping[Victim, int], seed: int
) -> Verdict:
    names = ", ".join(f"{count} x {name}" for name, count in victims.items())
    verdict = Verdict("one record per input (Ray)", names)
    cluster = RayCluster(NODES)
    try:
        with ClusterEngine(folder, cluster, tasks, seconds) as engine:
            attack(engine, victims, random.Random(seed), verdict)
            judge(engine, verdict)
            judge_ledger(engine, verdict)
    finally:
        cluster.close()
    return verdict


@pytest.mark.skipif(not FULL, reason="takes minutes; CHAOS=full")
def test_whatever_of_a_cluster_dies_costs_no_record(tmp_path: Path, report: Report) -> None:
    victims: Counter[Victim] = Counter(
        {"node": 10, "agent": 5, "worker": 10, "driver": 3, "cut off": 2}
    )
    verdict = report(run_attack(tmp_path, 1000, 0.6, victims, seed=1))
    assert not verdict.violations
    assert verdict.attempts > 0.8 * victims.total()  # some may be due when all is drawn
