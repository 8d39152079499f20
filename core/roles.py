"""The models of a generator, each chosen when its first task is there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device
from core.devices.memory_choice import MemoryChoice, usual_demand
from core.devices.model_choice import GENERATOR, choose_drawing_model
from core.devices.sharing import share_out
from core.errors import InputError
from core.index_files import PIPELINE_INDEX
from core.model_settings import LoadedModel
from core.paths import user_path
from core.role_model import RoleModel
from core.settings import Settings
from core.worker_spec import Role

if TYPE_CHECKING:
    from core.edit_settings import EditModels
    from core.remote.served_models import ServedModels


class Roles:
    """What draws, from the start, and what edits and judges, from the first such task on.

    Args:
        devices: one GPU each, or CPU workers; how workers share them is a setting of each role.
        asked_for: the user named these devices, or their number.
        inspector: looks into LoRA files.
        prompt_folder: where a judge's prompt file is looked up first.
        served: has the models in place of devices here; see `core.remote`.

    Raises:
        InputError, DeviceError: the model that draws cannot be used as it is set, or what the
            user says of the others cannot be meant so.
    """

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[Device],
        asked_for: bool,
        inspector: LoraInspector,
        prompt_folder: Path | None,
        served: "ServedModels | None" = None,
    ) -> None:
        self._served = served
        self._settings = settings
        self._devices = list(devices)
        self._inspector = inspector
        self._prompt_folder = prompt_folder
        self._chosen: dict[Role, RoleModel] = {}
        self.drawing = self._chosen["generate"] = self._draws(asked_for)
        if any((settings.editor, settings.judge, settings.judge_model_defaults)):
            self._edit_models()

    def __getitem__(self, role: Role) -> RoleModel:
        """The model of a role; not for several threads at once.

        Raises:
            InputError, DeviceError: it cannot be used as it is set. The next look tries again.
        """
        if role not in self._chosen:
            self._chosen[role] = self._choose(role)
        return self._chosen[role]

    @property
    def _lora_folders(self) -> list[Path]:
        return [Path.cwd(), user_path(self._settings.lora_dir, "lora_dir")]

    def _edit_models(self) -> "EditModels":
        from core.edit_settings import edit_models  # who only draws needs nothing of it

        return edit_models(self._settings)

    def _draws(self, asked_for: bool) -> RoleModel:
        settings = self._settings
        if self._served is not None:
            return self._served.drawing(
                "generate",
                settings,
                settings,
                lambda names: [settings.defaults, settings.defaults_for(*names)],
                GENERATOR,
                self._lora_folders,
                self._inspector,
                usual_demand([settings.defaults]),
            )
        devices = self._shared_out(settings, asked_for)
        model = choose_drawing_model(settings, devices, self._lora_folders, self._inspector)
        memory = MemoryChoice(
            model,
            settings.memory,
            devices,
            "generate",
            PIPELINE_INDEX,
            lambda model: settings.workers.decisive(model.deciding),
        )
        layers = [settings.defaults, settings.defaults_for(*model.names)]
        return RoleModel("generate", memory, devices, settings, usual_demand(layers), layers)

    def _choose(self, role: Role) -> RoleModel:
        if role not in ("edit", "score"):
            raise InputError(f"kind: no model here is for tasks of the kind {role!r}.")
        from core.edit_roles import editing_role, judging_role, served_edit_role

        settings, models = self._settings, self._edit_models()
        if self._served is not None:
            return served_edit_role(
                role,
                self._served,
                models,
                settings,
                self._lora_folders,
                self._inspector,
                self._prompt_folder,
            )
        if role == "score":
            devices = self._shared_out(models.judge)
            return judging_role(models, settings, devices, self._prompt_folder)
        devices = self._shared_out(models.editor)
        return editing_role(models, settings, devices, self._lora_folders, self._inspector)

    def _shared_out(self, model: LoadedModel, asked_for: bool = False) -> list[Device]:
        gpus, workers = model.gpus_per_worker or 1, model.workers_per_gpu or 1
        return share_out(self._devices, gpus, workers, asked_for)
