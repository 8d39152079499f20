"""The models that edit and judge: which they are, how they fit, and where they are served."""

from collections.abc import Sequence
from pathlib import Path

from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device
from core.devices.edit_models import (
    EDITOR,
    EDITOR_DEMAND,
    judge_demand,
    judge_model,
    judging_devices,
)
from core.devices.memory_choice import MemoryChoice
from core.devices.model_choice import choose_drawing_model
from core.edit_settings import EditModels
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.judge import load_judge
from core.remote.served_models import ServedModels
from core.role_model import RoleModel, SupervisedSettings
from core.worker_spec import Role


def editing_role(
    models: EditModels,
    settings: SupervisedSettings,
    devices: Sequence[Device],
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
) -> RoleModel:
    """What edits.

    Args:
        settings: of the run, for all of its roles.
        devices: one for each worker.
        lora_folders: where relative paths of LoRAs are looked up.

    Raises:
        InputError, DeviceError: the model cannot be used as it is set.
    """
    asked = models.editor
    model = choose_drawing_model(
        asked, devices, lora_folders, inspector, EDITOR, "edit", "editor.model_loras"
    )
    memory = MemoryChoice(
        model,
        asked.memory,
        devices,
        "edit",
        PIPELINE_INDEX,
        lambda model: settings.workers.decisive(model.deciding),
        "editor.memory",
    )
    layers = asked.layers(*model.names)
    return RoleModel("edit", memory, devices, settings, EDITOR_DEMAND, layers)


def judging_role(
    models: EditModels,
    settings: SupervisedSettings,
    devices: Sequence[Device],
    prompt_folder: Path | None,
) -> RoleModel:
    """What scores edits.

    Args:
        settings: of the run, for all of its roles.
        devices: one for each worker.
        prompt_folder: where the prompt file is looked up first.

    Raises:
        InputError, DeviceError: model or prompt file cannot be used as they are set.
    """
    devices = judging_devices(models.judge, devices)
    model, asked = judge_model(models, devices)
    judge = load_judge(asked, prompt_folder)
    memory = MemoryChoice(
        model,
        asked.memory,
        devices,
        "score",
        MODEL_INDEX,
        lambda model: judge.identity(model.deciding),
        "judge.memory",
        "parts" if judge.type.chats else "clip",
    )
    return RoleModel("score", memory, devices, settings, judge_demand(asked), judge=judge)


def served_edit_role(
    role: Role,
    served: ServedModels,
    models: EditModels,
    settings: SupervisedSettings,
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
    prompt_folder: Path | None,
) -> RoleModel:
    """What edits or scores at a daemon; see `editing_role` and `judging_role`.

    Raises:
        NotServed: the daemon has something else than the settings ask for.
    """
    if role == "score":
        return served.judging(models, settings, prompt_folder)
    return served.drawing(
        "edit",
        models.editor,
        settings,
        lambda names: models.editor.layers(*names),
        EDITOR,
        lora_folders,
        inspector,
        EDITOR_DEMAND,
        "editor.",
    )
