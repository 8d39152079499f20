"""Which model a run draws with, and the identity by which its pictures are told apart."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.checkpoints.checkpoint import Checkpoint, checkpoint_of_folder, with_denoiser
from core.checkpoints.known_models import known_checkpoint
from core.checkpoints.lora_files import LoraInspector
from core.checkpoints.model_loras import find_model_loras
from core.checkpoints.single_file import base_of, inspect_single_file, is_single_file
from core.checkpoints.variants import check_variant
from core.devices.automatic_model import Automatic, resolved
from core.devices.device import Device
from core.devices.memory_abilities import Abilities, Form, allows, form_of_file
from core.devices.working_memory import Demand
from core.errors import InputError
from core.file_ends import add_ends
from core.index_files import PIPELINE_INDEX
from core.memory_modes import Memory, Mode, changes_pixels
from core.model_identity import BASE, Identity, loaded_as
from core.model_lora import ModelLora
from core.model_settings import DrawingModel, Dtype
from core.paths import printable, user_path
from core.settings import PROJECT_DIR

Z_IMAGE_TURBO = "Tongyi-MAI/Z-Image-Turbo"
DEMO_MODEL = PROJECT_DIR / "demo_model" / "checkpoint"
SIMULATED = "simulated"
EDGE = 1024**2  # bytes: of a file of weights, its header and its ends tell it apart
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class ModelChoice:
    """The model of a run.

    `path_or_id` is what diffusers loads, or the address where a model is served; `identity` goes
    into fingerprints: it is the same for the same weights and names no machine's folders; `reason`
    is a line for the log.

    Attributes:
        variant: of the weight files, such as fp16 for `….fp16.safetensors`.
        memory: the memory mode in which every worker of the run loads it.
        base_model: what gives the other parts of a model in one file: hub id or folder.
        base_identity: the same for the same weights, as `identity`, and without spaces.
        loras: that belong to it.
        scheduler: settings over those of its own scheduler.
    """

    path_or_id: str
    identity: str
    reason: str
    revision: str | None = None
    dtype: Dtype = "auto"
    variant: str | None = None
    memory: Mode = "full"
    base_model: str | None = None
    base_identity: str | None = None
    loras: tuple[ModelLora, ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The model's name for users: its hub id, or the name of its file or folder."""
        if is_address(self.path_or_id):
            return printable(self.identity.partition("@")[0])
        is_file = os.path.isabs(self.path_or_id)
        return printable(Path(self.path_or_id).name if is_file else self.path_or_id)

    @property
    def has_files(self) -> bool:
        """It is loaded here from files: neither simulated, nor served elsewhere."""
        return self.path_or_id != SIMULATED and not is_address(self.path_or_id)

    @property
    def deciding(self) -> str:
        """The identity with all about how the model is loaded that changes its pictures."""
        others = loaded_as(self.variant, self.memory if changes_pixels(self.memory) else "full")
        if self.base_identity is not None:
            others[BASE] = self.base_identity
        loras = tuple(lora.identity for lora in self.loras)
        return str(Identity(self.identity, others, loras, self.scheduler))

    def drawing(self, loras: Sequence[ModelLora], scheduler: Mapping[str, Any]) -> "ModelChoice":
        """A copy of this choice with LoRAs and a noise schedule that belong to the model."""
        reason = self.reason
        if loras:
            reason += f" Model LoRAs: {', '.join(lora.shown for lora in loras)}."
        return replace(self, loras=tuple(loras), scheduler=dict(scheduler), reason=reason)

    @property
    def names(self) -> list[str]:
        """What defaults by model may fit, the first to count first."""
        return [name for name in (self.path_or_id, self.base_model) if name is not None]


GENERATOR = Automatic(Z_IMAGE_TURBO, DEMO_MODEL, "demo-model", Demand(guided=False))


def choose_model(
    name: str,
    revision: str | None,
    dtype: Dtype,
    devices: Sequence[Device],
    automatic: Automatic = GENERATOR,
    index_file: str = PIPELINE_INDEX,
    *,
    variant: str | None = None,
    memory: Memory = "auto",
    role: str = "generate",
    base_model: str | None = None,
) -> ModelChoice:
    """Resolve a `model` setting; a model that is asked for by name is never replaced.

    Args:
        index_file: what a model's folder must hold.
        variant: of its weight files.
        role: of the model: generate, edit or score.
        memory: the mode that is asked for; the choice names what the setting means before
            anybody looked whether it fits (`core.devices.memory_fit`).
        base_model: what gives the other parts of a model in one file.

    Raises:
        InputError: neither a model folder, a file, nor a hub id.
        DeviceError: others use the memory that the automatic choice needs.
    """
    why = "as asked for"
    in_one_file = is_single_file(name) and not os.path.isdir(user_path(name, "model"))
    form = form_of_file(name) if in_one_file else "parts"
    abilities = Abilities.here(devices, role, dtype, form)
    mode = abilities.mode_of(memory)
    if name == "auto":
        modes = abilities.modes() if memory == "auto" else [mode]
        name, why = resolved(devices, automatic, modes, dtype, abilities.host_free)
    if name == SIMULATED:
        return ModelChoice(SIMULATED, SIMULATED, "Model: simulated device, as asked for.")
    if in_one_file:
        if index_file != PIPELINE_INDEX:
            raise InputError(f"model: {name} is one file; a judge is a folder or a hub id.")
        if any(device.count > 1 for device in devices):
            raise InputError(
                f"gpus_per_worker: {name} is a model in one file, which cannot be spread over "
                "several GPUs."
            )
        choice = _in_one_file(name, base_model, revision, variant)
        if not allows(form, mode):
            raise InputError(_refusal_of_file(form, memory))
        reason = f"Model: {name} ({why}{_in_mode(mode)}), the other parts from {choice.base_model}."
        return replace(
            choice, revision=revision, dtype=dtype, variant=variant, memory=mode, reason=reason
        )
    if base_model is not None:
        raise InputError(
            f"base_model: {base_model!r} gives the missing parts of a model in one file; "
            f"{name!r} is none."
        )
    if not _looks_like_folder(name):
        if not _HUB_ID.fullmatch(name):
            raise InputError(
                f"model: {name!r} is neither an existing folder nor a hub id "
                f"like {automatic.hub_id!r}."
            )
        identity = f"{name}@{revision}" if revision else name
        reason = f"Model: {name} ({why}{_in_mode(mode)})."
        return ModelChoice(name, identity, reason, revision, dtype, variant, mode)
    folder = Path(os.path.realpath(user_path(name, "model")))
    is_demo = folder == automatic.demo
    identity = _folder_identity(folder, automatic.demo_identity if is_demo else None, index_file)
    check_variant(folder, variant)
    shown = f"the embedded {automatic.demo_identity.replace('-', ' ')}" if is_demo else name
    reason = f"Model: {shown} ({why}{_in_mode(mode)})."
    return ModelChoice(str(folder), identity, reason, revision, dtype, variant, mode)


def choose_drawing_model(
    asked: DrawingModel,
    devices: Sequence[Device],
    lora_folders: Sequence[Path],
    inspector: LoraInspector,
    automatic: Automatic = GENERATOR,
    role: str = "generate",
    setting: str = "model_loras",
) -> ModelChoice:
    """The model that draws or edits, with the LoRAs and the noise schedule that belong to it.

    Args:
        lora_folders: where relative paths of its LoRAs are looked up.
        setting: that names its LoRAs, for messages.

    Raises:
        InputError, DeviceError: see `choose_model` and
            `core.checkpoints.model_loras.find_model_loras`.
    """
    model = choose_model(
        asked.model,
        asked.revision,
        asked.dtype,
        devices,
        automatic,
        variant=asked.variant,
        memory=asked.memory,
        role=role,
        base_model=asked.base_model,
    )
    loras = find_model_loras(asked.model_loras, lora_folders, inspector, setting)
    return model.drawing(loras, asked.scheduler)


def checkpoint_of(
    model: ModelChoice, index_file: str = PIPELINE_INDEX, ask_hub: bool = True
) -> Checkpoint | None:
    """What a model's own files say of it: the folder's, the cache's, the hub's; else what is known.

    Args:
        ask_hub: it may be asked, where the cache has no answer.
    """
    if not model.has_files:
        return None
    if model.base_model is not None:
        base = replace(model, path_or_id=model.base_model, base_model=None)
        whole = checkpoint_of(base, index_file, ask_hub)
        return with_denoiser(whole, Path(model.path_or_id)) if whole else None
    if os.path.isdir(model.path_or_id):
        return checkpoint_of_folder(Path(model.path_or_id), model.variant)
    from core.checkpoints.hub_index import checkpoint_of_hub  # 0.15 s for the hub's client

    found = checkpoint_of_hub(
        model.path_or_id, model.revision, model.variant, index_file, ask=ask_hub
    )
    return found or known_checkpoint(model.path_or_id)


def _in_mode(mode: Mode) -> str:
    return "" if mode == "full" else f"; memory mode {mode}"


def _in_one_file(
    name: str, base_model: str | None, revision: str | None, variant: str | None
) -> ModelChoice:
    """`revision` and `variant` are the base model's: a file has none."""
    file = Path(os.path.realpath(user_path(name, "model")))
    base = base_of(file, inspect_single_file(file), base_model)
    digest = hashlib.sha256()
    size = file.stat().st_size
    digest.update(f"{size}\n".encode())
    with file.open("rb") as stream:
        add_ends(digest, stream, size, EDGE)
    base_identity = base
    if _looks_like_folder(base):
        base = os.path.realpath(user_path(base, "base_model"))
        base_identity = _folder_identity(Path(base), None, PIPELINE_INDEX, "base_model")
        check_variant(Path(base), variant)
    elif not _HUB_ID.fullmatch(base):
        raise InputError(f"base_model: {base!r} is neither an existing folder nor a hub id.")
    elif revision:
        base_identity = f"{base}@{revision}"
    return ModelChoice(
        str(file),
        f"{printable(file.name)}#{digest.hexdigest()[:16]}",
        reason="",
        base_model=base,
        base_identity=base_identity,
    )


def _refusal_of_file(form: Form, memory: Memory) -> str:
    if form == "gguf":
        return (
            f"memory: {memory} is none for a GGUF file, whose weights are in fewer bits already; "
            "full and offload are."
        )
    return f"memory: {memory} is none for a model in one file; full, fp8 and the offload modes are."


def is_address(path_or_id: str) -> bool:
    """Whether a chosen model's `path_or_id` is the address of a server that has it."""
    return path_or_id.startswith(("http://", "https://"))


def is_hub_model(path_or_id: str) -> bool:
    """Whether a chosen model's `path_or_id` is a hub id; folders have their whole path there."""
    return _HUB_ID.fullmatch(path_or_id) is not None


def _looks_like_folder(name: str) -> bool:
    return os.path.exists(user_path(name, "model")) or name.startswith((".", "/", "~"))


def _folder_identity(
    folder: Path, name: str | None, index_file: str, setting: str = "model"
) -> str:
    """A hash of file names, sizes and small configs: cheap, and another one for retrained weights.

    Weight files are told apart by their safetensors header and their first and last MiB.
    """
    if not os.path.isfile(folder / index_file):
        kind = "diffusers" if index_file == PIPELINE_INDEX else "transformers"
        raise InputError(
            f"{setting}: {folder} is not a {kind} model folder: it has no {index_file}."
        )
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(os.fsencode(f"{file.relative_to(folder).as_posix()}:{size}\n"))
        with file.open("rb") as stream:
            add_ends(digest, stream, size, EDGE)
    return f"{name or printable(folder.name)}#{digest.hexdigest()[:16]}"
