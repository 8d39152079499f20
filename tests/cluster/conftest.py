"""The command at work on a Ray cluster."""

import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

from core.store.ledger import FILE_NAME
from tests.cluster.ray_cluster import RayCluster
from tests.conftest import Project, Run, simulated


class ClusterRun:
    """The command on a cluster: started, looked at while it runs, and judged at its end.

    Args:
        tasks: how many pictures.
        seconds: of device time for each.
        more: fields of each task.
        held: its last task stands still, whoever has it, until the test has it go on: so the
            command does not end before the test has done what it does to it.
    """

    def __init__(
        self,
        project: Project,
        cluster: RayCluster,
        tasks: int,
        seconds: float,
        more: dict[str, Any] | None = None,
        held: bool = False,
        **settings: Any,
    ) -> None:
        self._project, self._tasks = project, tasks
        size = {"width": 64, "height": 64, "num_inference_steps": 1}
        prompts = [f"p{i}" for i in range(tasks)]
        if held:
            prompts[-1] = "!stop:99"
            settings["supervision"] = {"task_timeout": 1000.0, **settings.get("supervision", {})}
        self._file = project.write_tweets(
            [{"prompt": prompt, **size, **(more or {})} for prompt in prompts]
        )
        ray = {"address": cluster.address, **settings.pop("ray", {})}
        times = {
            "seconds_per_megapixel_step": seconds / (64 * 64 / 1e6),
            **settings.pop("simulated", {}),
        }
        self._settings = simulated(
            simulated=times, engine="ray", ray=ray, gallery=False, **settings
        )
        self.run: Run

    def start(self) -> "ClusterRun":
        self.run = self._project.start([self._file, "--log-level", "DEBUG"], self._settings)
        return self

    @property
    def drawn(self) -> int:
        """Pictures that have their name."""
        return len(list(self._project.pictures.glob("*.png")))

    @property
    def ended(self) -> bool:
        return self.run.process.poll() is not None

    def reaches(self, pictures: int) -> bool:
        """Whether so many pictures are there; for `wait_until`. The command must not have ended."""
        assert not self.ended, self.run.errors
        return self.drawn >= pictures

    def workers_by_node(self) -> Counter[str]:
        """Pictures by the node that drew them."""
        return Counter(row["worker"].partition("/")[0] for row in self._project.records())

    def check(self, exit_code: int = 0) -> None:
        """Wait for the end: one record for each input, one picture, and nothing beside them."""
        assert self.run.finish() == exit_code, self.run.errors
        positions = Counter(row["position"] for row in self._project.records())
        assert positions == Counter(range(self._tasks))
        assert {row["status"] for row in self._project.records()} <= {"done", "skipped"}
        assert self.drawn == self._tasks and self._project.leftovers() == []
        with closing(sqlite3.connect(self._project.pictures / FILE_NAME)) as ledger:
            [(done,)] = ledger.execute("SELECT count(*) FROM tasks WHERE state = 'done'")
            twice = ledger.execute(
                "SELECT key FROM leases WHERE outcome = 'done' GROUP BY key HAVING count(*) > 1"
            ).fetchall()
        assert done == self._tasks and twice == []
