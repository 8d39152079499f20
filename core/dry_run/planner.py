"""Makes the plan of a run from its inputs, as the run itself would look at them."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from core.batch_intake import BatchIntake
from core.byte_sizes import shown_bytes
from core.checkpoints.hub_state import cache_folder
from core.checkpoints.lora_files import LoraInspector
from core.dry_run.model_plan import ModelPlan, PlanSettings, ToDo
from core.dry_run.planned import PlannedModel, PlannedTask
from core.dry_run.run_plan import RunPlan
from core.errors import MultiGPUError
from core.intake.admission import Admitted, Item
from core.intake.assessment import Assessed
from core.intake.differences import Change
from core.intake.plan_summary import PlanSummary, Standing
from core.intake.task_kinds import Inputs
from core.paths import as_text
from core.role_model import RoleModel
from core.roles import Roles
from core.session import Session
from core.settings import Settings
from core.tasks import ROLES
from core.worker_spec import Role

Standings = Sequence[tuple[Assessed, Standing, Sequence[Change]]]


def plan_tasks(
    inputs: Inputs,
    roles: Roles,
    settings: Settings,
    session: Session,
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
    default_name: Callable[[str], str],
    first_number: int,
    server: str | None,
) -> RunPlan:
    """Plan inputs of a generator.

    Args:
        roles: of its own: what is decided about their memory is decided for the plan.
        session: one that only looks.
        lora_folders: where relative LoRA paths are looked up.
        default_name, first_number: of results that are given no name; see `BatchIntake`.
        server: the daemon whose models `roles` are.

    Raises:
        InputError, LedgerError, StorageError: the output folder cannot be used.
    """
    intake = BatchIntake(
        roles,
        settings,
        session.root,
        lora_folders,
        inspector,
        default_name,
        first_number,
        session.kept_seed(),
        session.claims.begin(),
    )
    counted = session.tracker.headway.over("checking", inputs, len(inputs))
    items = [intake.admit(i, given) for i, given in enumerate(counted)]
    planner = session.planner(intake.model_loras)
    known = {} if session.overwrite else planner.known(items)
    refusal = None
    with quiet():
        try:
            items = intake.settle(items, known, set())
        except MultiGPUError as error:  # of the model that draws
            refusal = error
    standings = session.standings(planner, items)
    served = server is not None
    with quiet():
        models = [
            planned_model(
                roles[role],
                to_do,
                settings,
                session,
                served,
                refusal if role == "generate" else None,
            )
            for role, to_do in tasks_to_do(standings).items()
        ]
    return whole_plan(
        [("Plan", PlanSummary.of((standing, changes) for _, standing, changes in standings))],
        [planned_task(*one) for one in standings],
        models,
        session,
        server,
        "tasks",
    )


def planned_model(
    role: RoleModel,
    to_do: Sequence[ToDo],
    settings: PlanSettings,
    session: Session,
    served: bool,
    refusal: MultiGPUError | None = None,
) -> PlannedModel:
    """What a model would do, and what that takes; see `ModelPlan`."""
    if refusal is None:
        try:
            role.ensure()
        except MultiGPUError as error:
            refusal = error
    folder = session.root.folder if session.lasts else None
    plan = ModelPlan(role, to_do, settings, session.ledger, folder, served, refusal)
    return plan.planned()


def tasks_to_do(standings: Standings) -> dict[Role, list[ToDo]]:
    """What workers would be given, by the model that does it, in the order of the kinds."""
    found: dict[Role, list[ToDo]] = {}
    for one, _, _ in standings:
        if one.entry.state == "pending" and isinstance(one.item, Admitted):
            found.setdefault(one.item.task.role, []).append(ToDo.of(one.item))
    return {role: found[role] for role in ROLES if role in found}


def planned_task(one: Assessed, standing: Standing, changes: Sequence[Change]) -> PlannedTask:
    """An input as the plan shows it."""
    item: Item = one.item
    return PlannedTask(
        item.position,
        item.task_id,
        item.role if isinstance(item, Admitted) else None,
        standing,
        tuple(changes),
        item.output.shown if isinstance(item, Admitted) else None,
        one.entry.error if standing in ("refused", "quarantined") else None,
    )


def whole_plan(
    summaries: Sequence[tuple[str, PlanSummary]],
    tasks: Sequence[PlannedTask],
    models: Sequence[PlannedModel],
    session: Session,
    server: str | None,
    noun: str,
) -> RunPlan:
    """Tasks and models with what is to be said of the output folder and its disk."""
    folder = session.root.folder if session.lasts else None
    problems: list[str] = []
    notes: list[str] = []
    free = None
    if folder is not None and any(model.tasks for model in models):
        place = _nearest(folder)
        free = _free(place)
        if not os.access(place, os.W_OK | os.X_OK):
            problems.append(f"{as_text(place)} cannot be written by this user.")
    problems += _lack_of_room(models, folder, free)
    if session.in_use_by is not None:
        notes.append(
            f"a run is at work in this folder ({session.in_use_by}); what it has not finished "
            "counts as not done, and no other can begin before its end."
        )
    if session.damage is not None:
        notes.append(
            f"the folder's ledger cannot be used ({session.damage}); a run would set it aside, "
            "and recognise results that are there."
        )
    quarantined = sum(summary.counts["quarantined"] for _, summary in summaries)
    if quarantined:
        are = "1 task is" if quarantined == 1 else f"{quarantined} tasks are"
        notes.append(f"{are} left out after crashes; --retry-quarantined tries them again.")
    return RunPlan(
        None if folder is None else as_text(folder),
        summaries,
        tasks,
        models,
        free,
        session.in_use_by,
        server,
        problems,
        notes,
        noun,
    )


def _lack_of_room(
    models: Sequence[PlannedModel], folder: Path | None, free: int | None
) -> Iterator[str]:
    """Results and downloads that have no room on their disks."""
    results = sum(model.bytes.low for model in models)
    fetched = sum(model.fetch or 0 for model in models)
    cache = _nearest(cache_folder()) if fetched else None
    if folder is not None and free is not None:
        together = cache is not None and _same_disk(cache, _nearest(folder))
        needed = results + (fetched if together else 0)
        if needed > free:
            yield (
                f"the disk of {as_text(folder)} has {shown_bytes(free)} free, and the run needs "
                f"at least {shown_bytes(needed)}{', the download included' * together}."
            )
            return
    if cache is not None:
        there = _free(cache)
        if there is not None and fetched > there:
            yield (
                f"the models' cache ({as_text(cache)}) has {shown_bytes(there)} free, and "
                f"{shown_bytes(fetched)} are to be downloaded. Have HF_HOME name a folder with "
                "room."
            )


def _nearest(folder: Path) -> Path:
    """The folder, or the next one above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.is_dir()), Path("/"))


def _free(place: Path) -> int | None:
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _same_disk(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_dev == other.stat().st_dev
    except OSError:
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the plan says itself out of the log."""
    source = "core.devices.memory_choice"
    logger.disable(source)
    try:
        yield
    finally:
        logger.enable(source)
