"""Gives a running job the rest of a large input, in the caller's thread."""

import time
from collections.abc import Callable, Sequence

from core.engine.job import AT_ONCE_REASONS, INTERRUPTED, Job
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
    Where the job ends early, inputs that were not looked at yet end as it does; but what an earlier
    run has finished stays finished, unless somebody is in a hurry. Each input gets its one result,
    whatever happens here.

    Args:
        told: told of refused inputs.
        look: called between pieces.
    """
    end: tuple[Status, str] = ("interrupted", INTERRUPTED)
    compares = False
    try:
        while plan.rest and job.ends_as is None:
            if job.waiting < MOST_WAITING:
                _add(engine, job, planner, plan, told)
            else:
                job.wait(ROOM_LOOK)
            look()
        end = job.ends_as or end
        compares = end[0] != "timeout" and end[1] not in AT_ONCE_REASONS
    except (StorageError, LedgerError) as refusal:
        end = ("failed", f"Not tried: the output folder cannot be written ({refusal})")
        job.close(*end)
        compares = True
    finally:
        try:
            # Until the job is closed in another way: the user has asked a second time.
            while compares and plan.rest and not plan.summary.all_new and _ends_as(job, end):
                _end_compared(engine, job, planner, plan, end)
                look()
        finally:
            while plan.rest:
                engine.extend(job, [], plan.rest.close_some(*end, AT_ONCE))
            engine.seal(job)


def _ends_as(job: Job, end: tuple[Status, str]) -> bool:
    return job.closed_as in (None, end)


def _end_compared(
    engine: TaskEngine, job: Job, planner: Planner, plan: Plan, end: tuple[Status, str]
) -> None:
    """Give the next inputs a result: that of an earlier run, or the end of the job."""
    assert plan.rest is not None
    items = plan.rest.admit_some(INPUTS_A_BREATH)
    ended = [_ended(item, *end) for item in items]
    try:
        ended = _compared(planner, plan, items, end)
    finally:
        engine.extend(job, [], ended)


def _compared(
    planner: Planner, plan: Plan, items: Sequence[Item], end: tuple[Status, str]
) -> list[Result]:
    """Results of inputs that are not tried: those of an earlier run, where it has finished them."""
    try:
        settled = planner.settled(plan, items)
    except (StorageError, LedgerError):  # nobody knows then what is there
        settled = [None] * len(items)
    return [known or _ended(item, *end) for item, known in zip(items, settled, strict=True)]


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
    except (StorageError, LedgerError) as error:
        engine.extend(job, [], _compared(planner, plan, items, ("failed", f"Not tried: {error}")))
        raise
    except BaseException:
        engine.extend(job, [], [_ended(item, "interrupted", INTERRUPTED) for item in items])
        raise
    settled = [one for one in planned if isinstance(one, Result)]
    told(settled)
    engine.extend(job, [one for one in planned if isinstance(one, Admitted)], settled)


def _ended(item: Item, status: Status, reason: str) -> Result:
    """The result of an input that is not tried."""
    if isinstance(item, Rejected):
        return Result(
            item.position, item.task_id, "failed", None, error=item.error, cause=item.cause
        )
    return result_of(item, status, error=reason)
