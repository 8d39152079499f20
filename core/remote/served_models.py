"""The models that a daemon serves, as roles of a run here.

Whoever asks for something is served that or nothing: what a daemon has is compared with all that
the settings here name and that decides results. `model: auto` is whatever the daemon has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.checkpoints.lora_files import LoraInspector
from core.checkpoints.model_loras import find_model_loras
from core.devices.automatic_model import Automatic
from core.devices.device import Device
from core.devices.memory_abilities import Abilities, form_of_file
from core.devices.memory_choice import MemoryChoice
from core.devices.model_choice import ModelChoice, choose_model
from core.devices.working_memory import Demand
from core.errors import DeviceError, InputError
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.memory_modes import Mode
from core.model_lora import ModelLora
from core.model_settings import DrawingModel, Dtype, LoadedModel
from core.remote.protocol import ENGINE_ROUTE, PROTOCOL
from core.remote.server import KEY_VARIABLE, Server, ServerBusy, ServerLost, ServerRefusal
from core.role_model import RoleModel, SupervisedSettings
from core.section import Section
from core.settings import EditDefaults, GenerationDefaults
from core.worker_spec import Role

if TYPE_CHECKING:
    from core.edit_settings import EditModels

PATIENCE = 5.0  # seconds for the first answer
_LAYERS: dict[Role, type[Section]] = {"generate": GenerationDefaults, "edit": EditDefaults}


class NotServed(InputError):
    """The daemon is no other way to what the settings ask for."""


@dataclass(frozen=True)
class ServedRole:
    """What a daemon does a kind of task with.

    Attributes:
        identity: of the model, with all that decides results, as in fingerprints.
        layers: its defaults for what a task leaves open, the first to count first.
        devices: of its workers.
    """

    model: ModelChoice
    identity: str
    dtype: Dtype
    layers: tuple[Section, ...]
    devices: tuple[Device, ...]

    @classmethod
    def of(cls, role: RoleModel) -> "ServedRole":
        """What a role of this process would look like to another one."""
        layers = tuple(role.layers)
        return cls(role.model, role.memory.identity, role.dtype, layers, tuple(role.devices))

    def as_json(self, names_only: bool) -> dict[str, Any]:
        """For the wire.

        Args:
            names_only: of files of this machine say nothing but their names.
        """
        model = asdict(self.model)
        if names_only:
            for name in ("path_or_id", "base_model"):
                if model[name] is not None and Path(model[name]).is_absolute():
                    model[name] = Path(model[name]).name
            for lora in model["loras"]:
                lora["path"] = lora["name"]
            model["reason"] = ""
        return {
            "model": model,
            "identity": self.identity,
            "dtype": self.dtype,
            "layers": [
                layer.model_dump(exclude_none=True, exclude={"match"}) for layer in self.layers
            ],
            "devices": [{**asdict(device), "mask": ""} for device in self.devices],
        }

    @classmethod
    def from_json(cls, role: Role, told: Mapping[str, Any]) -> "ServedRole":
        model = dict(told["model"])
        model["loras"] = tuple(ModelLora(**lora) for lora in model["loras"])
        kind = _LAYERS.get(role)
        layers = tuple(kind.model_validate(layer) for layer in told["layers"]) if kind else ()
        devices = tuple(
            Device(
                **{
                    **device,
                    "more_ids": tuple(device["more_ids"]),
                    "capability": device["capability"] and tuple(device["capability"]),
                }
            )
            for device in told["devices"]
        )
        return cls(ModelChoice(**model), told["identity"], told["dtype"], layers, devices)


class _ServedMemory(MemoryChoice):
    """A model that workers elsewhere have loaded: its memory mode is decided."""

    def __init__(self, model: ModelChoice, served: ServedRole, role: Role) -> None:
        super().__init__(
            model,
            "full",  # nothing is left open
            served.devices,
            role,
            PIPELINE_INDEX,
            lambda _: served.identity,
            form=_form_of(model),
        )

    @property
    def goes_by_sizes(self) -> bool:
        return False

    def decide(self, demand: Demand) -> None:
        """Do nothing: it is loaded."""


class ServedModels:
    """Asks a daemon for its models, and makes roles of them.

    Raises:
        NotServed: it does not answer, or is of another version.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._told: dict[Role, ServedRole] = {}
        self._ask("generate")

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._told["generate"].devices

    @property
    def drawing_model(self) -> str:
        """Name of the model that draws."""
        return self._told["generate"].model.identity.partition("#")[0]

    def _ask(self, role: Role) -> ServedRole:
        if role in self._told:
            return self._told[role]
        try:
            told = self.server.call("GET", f"{ENGINE_ROUTE}?kind={role}", timeout=PATIENCE)
        except ServerLost as error:
            raise NotServed(f"no server answers at {self.server.name} ({error})") from None
        except (ServerBusy, ServerRefusal) as error:
            if isinstance(error, ServerRefusal) and error.status == 401:
                raise NotServed(
                    f"the server at {self.server.name} asks for an API key, which is read from the "
                    f"environment variable {KEY_VARIABLE}: there is none, or not one of its keys"
                ) from None
            said = str(error).rstrip(".")
            raise NotServed(f"the server at {self.server.name} says: {said}") from None
        if not isinstance(told, dict) or told.get("protocol") != PROTOCOL:
            raise self._other_version()
        try:
            self.server.max_tasks = int(told["max_tasks"])
            found = ServedRole.from_json(role, told)
        except (LookupError, TypeError, ValueError):
            raise self._other_version() from None
        self._told[role] = found
        return found

    def _other_version(self) -> NotServed:
        return NotServed(f"the server at {self.server.name} is of another version")

    def drawing(
        self,
        role: Role,
        asked: DrawingModel,
        settings: SupervisedSettings,
        own_layers: Callable[[Sequence[str]], Sequence[Section]],
        automatic: Automatic,
        lora_folders: Sequence[Path],
        inspector: LoraInspector,
        usual: Demand,
        section: str = "",
    ) -> RoleModel:
        """The role that draws or edits.

        Args:
            own_layers: the defaults of the settings here, for the names of a model; they come
                before the daemon's.
            section: of the settings, with its dot, for messages.

        Raises:
            NotServed: the daemon has something else than the settings ask for.
        """
        served = self._ask(role)
        self._check_devices(settings, served)
        model = self._model(role, asked, served, automatic, section, asked.base_model)
        loras = find_model_loras(
            asked.model_loras, lora_folders, inspector, f"{section}model_loras"
        )
        model = model.drawing(loras, asked.scheduler)
        self._check(settings.workers.decisive(model.deciding), served, section)
        model = replace(model, reason=self._reason(model))
        layers = [*own_layers(model.names), *served.layers]
        memory = _ServedMemory(model, served, role)
        return RoleModel(role, memory, served.devices, settings, usual, layers)

    def judging(
        self, models: "EditModels", settings: SupervisedSettings, prompt_folder: Path | None
    ) -> RoleModel:
        """The role that scores.

        Raises:
            NotServed: the daemon has something else than the settings ask for.
        """
        from core.devices.edit_models import JUDGE, judge_demand, judge_settings, with_lora
        from core.judge import load_judge
        from core.judge_type import JUDGES

        if not JUDGES[models.judge.type].loads:
            raise NotServed(f"a judge of type {models.judge.type} has a server of its own")
        served = self._ask("score")
        self._check_devices(settings, served)
        model = self._model("score", models.judge, served, JUDGE, "judge.")
        model = with_lora(replace(model, loras=()), models.judge)
        asked = judge_settings(models, model)
        judge = load_judge(asked, prompt_folder)
        self._check(judge.identity(model.deciding), served, "judge.")
        model = replace(model, reason=self._reason(model))
        memory = _ServedMemory(model, served, "score")
        return RoleModel(
            "score", memory, served.devices, settings, judge_demand(asked), judge=judge
        )

    def _model(
        self,
        role: Role,
        asked: LoadedModel,
        served: ServedRole,
        automatic: Automatic,
        section: str,
        base_model: str | None = None,
    ) -> ModelChoice:
        """What the settings mean, as it would be loaded where the daemon has loaded its own."""
        if asked.dtype != served.dtype:
            raise self._other(f"{section}dtype {served.dtype}", f"{asked.dtype}")
        model = served.model
        if asked.model != "auto":
            try:
                model = choose_model(
                    asked.model,
                    asked.revision,
                    asked.dtype,
                    served.devices,
                    automatic,
                    PIPELINE_INDEX if role != "score" else MODEL_INDEX,
                    variant=asked.variant,
                    role=role,
                    base_model=base_model,
                )
            except DeviceError as error:
                raise NotServed(str(error)) from None
        elif (asked.revision, asked.variant) not in ((None, None), (model.revision, model.variant)):
            found = f"revision {model.revision} and variant {model.variant}"
            raise self._other(found, f"{asked.revision} and {asked.variant}")
        mode: Mode = served.model.memory
        if asked.memory != "auto":
            form = _form_of(model)
            mode = Abilities.here(served.devices, role, asked.dtype, form).mode_of(asked.memory)
        return replace(model, memory=mode)

    def _check(self, identity: str, served: ServedRole, section: str) -> None:
        if identity != served.identity:
            found, wanted = _difference(served.identity, identity)
            raise self._other(f"{section}model {found}", wanted)

    def _check_devices(self, settings: SupervisedSettings, served: ServedRole) -> None:
        wanted = getattr(settings, "device", "auto")
        found = sorted({device.kind for device in served.devices})
        if wanted != "auto" and found != [wanted]:
            raise self._other(f"device {' and '.join(found)}", wanted)

    def _other(self, found: str, wanted: str) -> NotServed:
        return NotServed(
            f"the server at {self.server.name} has {found}, and the settings ask for {wanted}"
        )

    def _reason(self, model: ModelChoice) -> str:
        name = model.identity.partition("#")[0]
        return f"Model: {name}, which the server at {self.server.name} has loaded."


def _form_of(model: ModelChoice) -> Any:
    return "parts" if model.base_model is None else form_of_file(model.path_or_id)


def _difference(found: str, wanted: str) -> tuple[str, str]:
    """Two identities that are not the same, without what they have in common at their ends."""
    if found.partition(" ")[0] != wanted.partition(" ")[0]:
        return found.partition(" ")[0], wanted.partition(" ")[0]
    return found, wanted
