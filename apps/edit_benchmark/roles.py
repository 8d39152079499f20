"""The two models of a benchmark: which they are, and which devices serve them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device
from core.devices.sharing import share_out
from core.edit_roles import editing_role, judging_role, served_edit_role
from core.engine_choice import Workplace, choose_workplace
from core.role_model import RoleModel

if TYPE_CHECKING:
    from core.remote.served_models import ServedModels


def choose_roles(
    settings: BenchmarkSettings,
    workplace: Workplace | None,
    config_folder: Path | None,
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
    served: "ServedModels | None" = None,
    score_only: bool = False,
) -> tuple[RoleModel | None, RoleModel]:
    """The editor, None with `score_only`, and the judge.

    Args:
        workplace: has the devices, where no server has the models.
        served: has the models in place of devices here; see `core.remote`.

    Raises:
        InputError: devices, models or prompts cannot be used as they stand.
    """
    if served is not None:
        given = served, settings, settings, lora_folders, inspector, config_folder
        editor = None if score_only else served_edit_role("edit", *given)
        return editor, served_edit_role("score", *given)
    assert workplace is not None
    devices, judge_devices = _devices(settings, workplace)
    editor = (
        None if score_only else editing_role(settings, settings, devices, lora_folders, inspector)
    )
    return editor, judging_role(settings, settings, judge_devices, config_folder)


def workplace_of(
    settings: BenchmarkSettings, device_ids: list[int] | None, num_gpus: int | None = None
) -> Workplace:
    """The devices of a benchmark, and what runs workers on them.

    Args:
        device_ids: which GPUs, instead of the settings'.
        num_gpus: how many, instead of those; without CUDA, how many CPU workers.

    Raises:
        DeviceError, InputError: they cannot be had.
    """
    ids = device_ids if device_ids is not None or num_gpus is not None else settings.device_ids
    found = choose_workplace(settings, num_gpus, ids)
    unsaid = ids is None and num_gpus is None
    if settings.engine == "local" and found.devices[0].kind == "cpu" and unsaid:
        return choose_workplace(settings, settings.cpu_workers, None)
    return replace(found, are_named=not unsaid)


def _devices(
    settings: BenchmarkSettings, workplace: Workplace
) -> tuple[list[Device], list[Device]]:
    """One per worker, of the editors and of the judges."""
    devices = workplace.devices
    shares = [settings.shares_of(role) for role in (settings.editor, settings.judge)]
    devices_of = {}
    for gpus, workers in dict.fromkeys(shares):
        chosen = devices[: gpus or 1] if settings.parallel_mode == "single" else devices
        devices_of[gpus, workers] = share_out(chosen, gpus, workers, workplace.are_named)
    editors, judges = (devices_of[share] for share in shares)
    return editors, judges
