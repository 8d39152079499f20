"""The two models of a benchmark: which they are, and which devices serve them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device, choose_devices
from core.devices.sharing import share_out
from core.edit_roles import editing_role, judging_role, served_edit_role
from core.role_model import RoleModel

if TYPE_CHECKING:
    from core.remote.served_models import ServedModels


def choose_roles(
    settings: BenchmarkSettings,
    device_ids: list[int] | None,
    config_folder: Path | None,
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
    served: "ServedModels | None" = None,
    score_only: bool = False,
) -> tuple[RoleModel | None, RoleModel]:
    """The editor, None with `score_only`, and the judge.

    Args:
        served: has the models in place of devices here; see `core.remote`.

    Raises:
        InputError: devices, models or prompts cannot be used as they stand.
    """
    if served is not None:
        given = served, settings, settings, lora_folders, inspector, config_folder
        editor = None if score_only else served_edit_role("edit", *given)
        return editor, served_edit_role("score", *given)
    devices, judge_devices = _devices(settings, device_ids)
    editor = (
        None if score_only else editing_role(settings, settings, devices, lora_folders, inspector)
    )
    return editor, judging_role(settings, settings, judge_devices, config_folder)


def _devices(
    settings: BenchmarkSettings, device_ids: list[int] | None
) -> tuple[list[Device], list[Device]]:
    """One per worker, of the editors and of the judges."""
    ids = device_ids if device_ids is not None else settings.device_ids
    devices = choose_devices(None, ids, settings.device)
    if devices[0].kind == "cpu" and ids is None:
        devices = choose_devices(settings.cpu_workers, None, settings.device)
    shares = [settings.shares_of(role) for role in (settings.editor, settings.judge)]
    devices_of = {}
    for gpus, workers in dict.fromkeys(shares):
        chosen = devices[: gpus or 1] if settings.parallel_mode == "single" else devices
        devices_of[gpus, workers] = share_out(chosen, gpus, workers, asked_for=ids is not None)
    editors, judges = (devices_of[share] for share in shares)
    return editors, judges
