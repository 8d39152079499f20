"""Nodes, agents, workers and drivers of a Ray cluster die, or are cut off, at random moments.

In the normal tests `tests/cluster` has a little of it.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from tests.both_engines import RayWorkplace
from tests.chaos.checks import count_orphans, judge, judge_ledger, pictures_to_draw
from tests.chaos.engines import Hang, RealEngine
from tests.chaos.scale import FULL
from tests.chaos.verdict import Verdict
from tests.cluster.cable import Cable, may_lay_cables
from tests.cluster.ray_cluster import Apart, RayCluster, hides

NODES = 3
FENCE = 3.0  # seconds
LEFT = 5.0  # seconds for a dead bridge's agents and workers to be gone
Report = Callable[[Verdict], Verdict]
Victim = Literal["node", "agent", "worker", "driver", "bridge", "cut off"]


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
        elif victim == "bridge":
            _end_the_bridge(engine, verdict)
        elif victim == "cut off":
            _cut_off(engine, rng.choice(cluster.nodes), verdict)
        else:
            if engine.ended:
                return False
            engine.kill_main()
            count_orphans(engine, verdict)
            engine.start()
        return True
    return False


def _end_the_bridge(engine: ClusterEngine, verdict: Verdict) -> None:
    """Nobody is left who could not be heard any more; the next bridge has others."""
    theirs = [*engine.agents(), *engine.workers()]
    engine.cluster.bridge(psutil.Process(engine.process.pid)).kill()
    _, left = psutil.wait_procs(theirs, timeout=LEFT)
    verdict.found("orphan", len(left))


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
        {"node": 10, "agent": 5, "worker": 10, "driver": 3, "bridge": 3, "cut off": 2}
    )
    verdict = report(run_attack(tmp_path, 1000, 0.6, victims, seed=1))
    assert not verdict.violations
    assert verdict.attempts > 0.8 * victims.total()  # some may be due when all is drawn


class Machines:
    """A cluster of this machine, and of two that are connected to it by cables."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self._cables = [Cable()]
        stack.callback(self._cables[0].remove)
        self.cluster = RayCluster(1, self._cables[0].here)
        stack.callback(self.cluster.close)
        self._apart: list[tuple[Cable, Apart]] = []
        self._count = 0
        self._add(self._cables[0])
        self._add()

    def _add(self, cable: Cable | None = None) -> None:
        if cable is None:
            cable = Cable(self.cluster.host)
            self._stack.callback(cable.remove)
        self._count += 1
        script = hides(self._folder)
        apart = self.cluster.add_apart(f"apart{self._count}", script, cable)
        self._stack.callback(apart.end)
        self._apart.append((cable, apart))

    def cut_one(self, rng: random.Random, for_good: bool, verdict: Verdict) -> bool:
        """Cut a cable whose machine has workers; one that is cut for good is replaced."""
        cable, apart = rng.choice([(c, a) for c, a in self._apart if a.workers()])
        workers = apart.workers()
        cable.cut()
        if not for_good:
            psutil.wait_procs(workers, timeout=FENCE / 3)
            cable.mend()
            return True
        _, left = psutil.wait_procs(workers, timeout=15)
        verdict.found("orphan", len(left))
        self._apart.remove((cable, apart))
        apart.end()
        self._add()
        return True


@pytest.mark.skipif(not FULL, reason="takes minutes; CHAOS=full")
@pytest.mark.skipif(not may_lay_cables(), reason="needs network namespaces (root, and ip)")
def test_machines_whose_cables_are_cut_cost_no_record(tmp_path: Path, report: Report) -> None:
    """Two machines with addresses of their own: cables are cut, for a moment or for good."""
    rng = random.Random(2)
    verdict = Verdict("one record per input (Ray)", "5 x cable cut")
    with ExitStack() as stack:
        world = Machines(stack, tmp_path)
        engine = stack.enter_context(ClusterEngine(tmp_path, world.cluster, 400, 0.6))
        engine.start()
        try:
            for number in range(5):
                engine.wait(partial(_at_work, engine, 70 * number + 10))
                verdict.attempts += world.cut_one(rng, for_good=number % 2 == 0, verdict=verdict)
            engine.wait()
            verdict.found("exit code", engine.process.returncode != 0)
        except Hang:
            verdict.found("hang")
        judge(engine, verdict)
        judge_ledger(engine, verdict)
    verdict = report(verdict)
    assert not verdict.violations, verdict.log
    assert verdict.attempts == 5
