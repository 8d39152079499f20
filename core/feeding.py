"""Gives a running job the rest of a large input, in the caller's thread."""

import time
from collections.abc import Callable, Sequence

from core.engine.job import INTERRUPTED, Job
from core.engine.task_engine import TaskEngine
from core.errors import LedgerError, StorageError
from core.intake.admission import Admitted, Item, Rejected
from core.intake.planning import Plan, Planner
from core.intake.remaining import AT_ONCE
from core.store.ledger_entry import result_of
from core.tasks import Result, Status

MOST_WAITING = 100_000  # tasks in memory; the rest of a larger input stays where it is read from
ROOM_LOOK = 0.2  # seconds between looks whether so many wait no more
BREATH = 0.0002  # seconds after some inputs: the engine's thread need not wait for its turn
INPUTS_A_BREATH = 16


def feed(
    engine: TaskEngine,
    job: Job,
    planner: Planner,
    plan: Plan,
    told: Callable[[Sequence[Result]], None],
    look: Callable[[], None],
) -> None:
    """Check, record and hand over the rest of a batch, piece by piece; then the job is sealed.

    No more than `MOST_WAITING` of its tasks wait in memory, and the next one is chosen from these.
    Where the job ends early, inputs that were not looked at yet end as it does. Each input gets
    its one result, whatever happens here.

    Args:
        told: told of refused inputs.
        look: called between pieces.
    """
    end: tuple[Status, str] = ("interrupted", INTERRUPTED)
    try:
        while plan.rest and job.ends_as is None:
            if job.waiting < MOST_WAITING:
                _add(engine, job, planner, plan, told)
            else:
                job.wait(ROOM_LOOK)
            look()
        end = job.ends_as or end
    except (StorageError, LedgerError) as refusal:
        end = ("failed", f"Not tried: the output folder cannot be written ({refusal})")
        job.close(*end)
    finally:
        while plan.rest:
            engine.extend(job, [], plan.rest.close_some(*end))
        engine.seal(job)


def _add(
    engine: TaskEngine,
    job: Job,
    planner: Planner,
    plan: Plan,
    told: Callable[[Sequence[Result]], None],
) -> None:
    assert plan.rest is not None
    items: list[Item] = []
    try:
        while plan.rest and len(items) < AT_ONCE:
            items += plan.rest.admit_some(INPUTS_A_BREATH)
            time.sleep(BREATH)
        planned = planner.add(plan, items)
    except BaseException as error:
        engine.extend(job, [], [_without_record(item, error) for item in items])
        raise
    settled = [one for one in planned if isinstance(one, Result)]
    told(settled)
    engine.extend(job, [one for one in planned if isinstance(one, Admitted)], settled)


def _without_record(item: Item, error: BaseException) -> Result:
    """The result of an input that was checked, and not planned any more."""
    if isinstance(item, Rejected):
        return Result(
            item.position, item.task_id, "failed", None, error=item.error, cause=item.cause
        )
    if isinstance(error, StorageError | LedgerError):
        return result_of(item, "failed", error=f"Not tried: {error}")
    return result_of(item, "interrupted", error=INTERRUPTED)
