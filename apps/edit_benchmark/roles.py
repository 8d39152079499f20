"""The two models of a benchmark: which they are, and which devices serve them."""

from collections.abc import Sequence
from pathlib import Path

from apps.edit_benchmark.models import EDITOR, judge_model
from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device, choose_devices
from core.devices.memory_choice import MemoryChoice
from core.devices.model_choice import choose_drawing_model
from core.devices.sharing import share_out
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.judge import Judge, load_judge
from core.memory_modes import refuse_unusable
from core.role_model import RoleModel


def choose_roles(
    settings: BenchmarkSettings,
    device_ids: list[int] | None,
    config_folder: Path | None,
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
) -> tuple[RoleModel, RoleModel]:
    """The editor and the judge.

    Raises:
        InputError: devices, models or prompts cannot be used as they stand.
    """
    devices, judge_devices = _devices(settings, device_ids)
    editor = choose_drawing_model(
        settings.editor, devices, lora_folders, inspector, EDITOR, "edit", "editor.model_loras"
    )
    found_judge, judge_settings = judge_model(settings, judge_devices)
    judge: Judge = load_judge(judge_settings, config_folder)
    editor_memory = MemoryChoice(
        editor,
        settings.editor.memory,
        devices,
        "edit",
        PIPELINE_INDEX,
        lambda model: settings.workers.decisive(model.deciding),
        "editor.memory",
    )
    judge_memory = MemoryChoice(
        found_judge,
        settings.judge.memory,
        judge_devices,
        "score",
        MODEL_INDEX,
        lambda model: judge.identity(model.deciding),
        "judge.memory",
        "parts" if judge.type.chats else "clip",
    )
    on_cpu = devices[0].kind == "cpu"
    refuse_unusable(editor.memory, "edit", on_cpu, "editor.memory")
    refuse_unusable(found_judge.memory, "score", on_cpu, "judge.memory")
    return (
        RoleModel("edit", editor_memory, devices, settings),
        RoleModel("score", judge_memory, judge_devices, settings, judge),
    )


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
