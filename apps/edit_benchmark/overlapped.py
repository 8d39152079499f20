"""`stages: overlapped`: editors and judges work side by side, split by their measured rates.

An edit is scored as soon as it is published. A device changes sides when the remaining work
asks for another split and lasts long enough to pay for loading the other model; when no edit
waits any more, editors leave one by one to score. If all judges are given up before that, the
editors go on, and then every device scores what is left.
"""

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from loguru import logger

from apps.edit_benchmark.split import judges_wanted
from core.devices.device import memory_in_use
from core.tasks import Result
from core.worker_spec import Role

if TYPE_CHECKING:
    from apps.edit_benchmark.runner import EditBenchmark

ENOUGH = 3  # finished tasks of a role until its rate counts
REMEMBERED = 64  # finished tasks that a rate is the median of
WORTH = 300.0  # seconds of remaining work below which loading another model pays no more
PAUSE = 10.0  # seconds between two changes of the split


@dataclass
class _Crew:
    """How many devices each role has, what is left to do, and how fast it goes."""

    editors: int
    judges: int
    edits_left: int
    scores_left: int
    seconds: dict[Role, list[float]] = field(default_factory=lambda: {"edit": [], "score": []})
    changed: float = field(default_factory=time.monotonic)

    def learn(self, role: Role, result: Result) -> None:
        if role == "edit":
            self.edits_left -= 1
            self.scores_left -= not result.success  # nothing to score
        else:
            self.scores_left -= 1
        if result.status == "done":
            self.seconds[role].append(result.elapsed)

    def rate(self, role: Role) -> float | None:
        """Seconds of device time a task."""
        taken = self.seconds[role][-REMEMBERED:]
        return median(taken) if len(taken) >= ENOUGH else None

    def judges_wanted(self) -> int:
        """As many as there are, unless the remaining work pays for a change."""
        edit, score = self.rate("edit"), self.rate("score")
        devices = self.editors + self.judges
        wanted = judges_wanted(devices, self.judges, self.edits_left, self.scores_left, edit, score)
        if wanted is None or edit is None or score is None:
            return self.judges
        left = (self.edits_left * edit + self.scores_left * score) / devices
        if left < WORTH or time.monotonic() - self.changed < PAUSE:
            return self.judges
        return wanted


def run_overlapped(run: "EditBenchmark") -> None:
    """Edit and score at once; in the end every device scores."""
    waiting = run.score_jobs()
    jobs = run.edit_jobs
    if not jobs:
        run.score(waiting)
        return
    editors = run.devices[:-1][: len(jobs)]
    judges = run.devices[len(editors) :]
    before = memory_in_use(run.devices)
    run.start_pool("edit", editors, jobs)
    run.start_pool("score", judges, waiting, open_ended=True)
    crew = _Crew(len(editors), len(judges), len(jobs), len(jobs) + len(waiting))
    while crew.edits_left:
        _handle_next(run, crew)
        _rebalance(run, crew)
    editing, scoring = run.pool("edit"), run.pool("score")
    editors_left = not editing.gave_up
    editing.dismiss(crew.editors)
    scoring.seal()
    while not run.batch("score").finished:
        _handle_next(run, crew)
    run.stop_pool("edit")
    run.stop_pool("score")
    run.note_events()  # the last ones, which came at once
    if scoring.gave_up and not scoring.cannot_load and (editors_left or scoring.has_served):
        run.wait_for_memory(run.devices, before)
        run.score_again(run.batch("score").undecided())


def _handle_next(run: "EditBenchmark", crew: _Crew) -> None:
    event = run.next_event()
    if event is None:
        return
    if event.device is not None:
        role = _role_for_device(run, crew, event.role)
        if role is not None:
            run.move_to(role, event.device)
    elif event.result is not None:
        crew.learn(event.role, event.result)
        if event.role == "edit" and event.result.success:
            run.add_score(event.result)


def _role_for_device(run: "EditBenchmark", crew: _Crew, left: Role) -> Role | None:
    """What a device that became free shall do; it may be too late for what it was meant for."""
    if run.pool("score").gave_up:
        return "edit" if crew.edits_left else None
    return "edit" if left == "score" and crew.edits_left else "score"


def _rebalance(run: "EditBenchmark", crew: _Crew) -> None:
    """Change the split; one editor stays until the last edit is done, for what is retried."""
    if run.pool("score").gave_up:
        return
    wanted = crew.judges_wanted()
    if run.batch("edit").waiting == 0:
        wanted = crew.editors + crew.judges - 1
    more = wanted - crew.judges
    if more == 0:
        return
    logger.info(f"Split: {crew.editors - more} editing, {wanted} scoring.")
    run.pool("edit" if more > 0 else "score").dismiss(abs(more))
    crew.editors, crew.judges, crew.changed = crew.editors - more, wanted, time.monotonic()
