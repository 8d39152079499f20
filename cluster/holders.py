"""Who has a cluster's GPUs: actors, placement groups and tasks of other Ray jobs."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

COMMAND = "command"  # in a job's metadata: the command line of a run of this program
LONGEST = 80  # characters of a command line
NOBODY = b"\xff"  # of which the id of no placement group is made


@dataclass(frozen=True)
class Holding:
    """GPUs of a node that a job of somebody else has.

    Attributes:
        job: as Ray calls it.
        what: has them there.
    """

    node_id: str
    gpus: float
    job: str
    what: str


def holdings(with_tasks: bool = True) -> list[Holding]:
    """All of other jobs, as far as Ray has been told.

    Args:
        with_tasks: Ray learns of a task a second after its start, and lists all that it remembers:
            100,000 at most.
    """
    found = [*_of_actors(), *_of_placement_groups()]
    if with_tasks:
        found += _of_tasks()
    own = ray.get_runtime_context().get_job_id()
    return [one for one in found if one.gpus and one.job != own]


def whose(held: Sequence[Holding]) -> str:
    """The jobs that hold some GPUs, in words; "" where none is known."""
    known = {job.job_id.hex(): job for job in _jobs()}
    parts = []
    for job in dict.fromkeys(one.job for one in held):
        what = ", ".join(dict.fromkeys(one.what for one in held if one.job == job))
        parts.append(f"{_words(job, known.get(job))}: {what}")
    return "; ".join(parts)


def others_with_its_gpus(
    node_id: str, all_gpus: int, wanted: int, with_tasks: bool
) -> list[Holding]:
    """What others hold of a node's GPUs, if they leave too few for an agent without a process.

    Nothing where they leave enough. That GPUs are not free says nothing by itself: Ray counts them
    as used while the agent's process is started.
    """
    here = [one for one in holdings(with_tasks) if one.node_id == node_id]
    return here if all_gpus - sum(one.gpus for one in here) < wanted else []


# Of what follows Ray has no public form that does without its dashboard.


def _accessor() -> Any:
    from ray._private.state import state

    return state._connect_and_get_accessor()


def _of_actors() -> list[Holding]:
    from ray.core.generated.gcs_pb2 import ActorTableData

    actors = map(ActorTableData.FromString, _accessor().get_actor_table(None, "ALIVE"))
    return [
        Holding(
            actor.address.node_id.hex(),
            actor.required_resources["GPU"],
            actor.job_id.hex(),
            f"actor {actor.class_name}",
        )
        for actor in actors
        if not actor.placement_group_id.strip(NOBODY)
    ]


def _of_placement_groups() -> list[Holding]:
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    groups = map(PlacementGroupTableData.FromString, _accessor().get_placement_group_table())
    return [
        Holding(
            bundle.node_id.hex(),
            bundle.unit_resources["GPU"],
            group.creator_job_id.hex(),
            f"placement group {group.name}".strip(),
        )
        for group in groups
        if group.state == PlacementGroupTableData.CREATED
        for bundle in group.bundles
    ]


def _of_tasks() -> list[Holding]:
    from ray.core.generated.common_pb2 import TaskStatus, TaskType
    from ray.core.generated.gcs_pb2 import TaskEvents

    begun = {TaskStatus.Value(name) for name in ("SUBMITTED_TO_WORKER", "RUNNING")}
    over = {TaskStatus.Value(name) for name in ("FINISHED", "FAILED")}
    found = []
    for raw in _accessor().get_task_events():
        task = TaskEvents.FromString(raw)
        info, seen = task.task_info, {*task.state_updates.state_ts_ns}
        in_group = info.placement_group_id.strip(NOBODY)
        is_one = info.type == TaskType.NORMAL_TASK and not in_group
        if is_one and seen & begun and not seen & over:
            found.append(
                Holding(
                    task.state_updates.node_id.hex(),
                    info.required_resources["GPU"],
                    task.job_id.hex(),
                    f"task {info.name}",
                )
            )
    return found


def _jobs() -> list[Any]:
    from ray.core.generated.gcs_pb2 import JobTableData

    table = _accessor().get_job_table(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    return [JobTableData.FromString(job) for job in table]


def _words(job_id: str, job: Any) -> str:
    if job is None:
        return f"job {job_id}"
    command = " ".join((job.config.metadata[COMMAND] or job.entrypoint).split())
    with suppress(ValueError):
        # The interpreter's path tells nobody anything.
        command = command[command.index(" ") + 1 :] if "python" in command.split()[0] else command
    short = command if len(command) <= LONGEST else command[: LONGEST - 1] + "…"
    return f"job {job_id} ({short}, started on {job.driver_ip_address})"
