"""Which model a run draws with, and the identity by which its pictures are told apart."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.deciding import Deciding
from core.devices import Device
from core.errors import DeviceError, InputError
from core.file_ends import add_ends
from core.memory_modes import Memory, Mode, fp8_mode
from core.paths import printable, user_path
from core.settings import PROJECT_DIR, Dtype

Z_IMAGE_TURBO = "Tongyi-MAI/Z-Image-Turbo"
Z_IMAGE_TURBO_BYTES = 20 * 1024**3  # of GPU memory: 6B transformer + 4B text encoder, bf16
DEMO_MODEL = PROJECT_DIR / "demo_model" / "checkpoint"
SIMULATED = "simulated"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class ModelChoice:
    """The model of a run.

    `path_or_id` is what diffusers loads; `identity` goes into fingerprints: it is the same
    for the same weights and names no machine's folders; `reason` is a line for the log.

    Attributes:
        variant: of the weight files, such as fp16 for `….fp16.safetensors`.
        memory: the memory mode in which every worker of the run loads it.
    """

    path_or_id: str
    identity: str
    reason: str
    revision: str | None = None
    dtype: Dtype = "auto"
    variant: str | None = None
    memory: Mode = "full"

    @property
    def deciding(self) -> str:
        """The identity with all about how the model is loaded that changes its pictures."""
        return str(Deciding.of_model(self.identity, self.variant, self.memory))


@dataclass(frozen=True)
class Automatic:
    """What `auto` means: a hub model where every chosen GPU has the memory, else a folder."""

    hub_id: str
    needed_bytes: int
    demo: Path
    demo_identity: str


GENERATOR = Automatic(Z_IMAGE_TURBO, Z_IMAGE_TURBO_BYTES, DEMO_MODEL, "demo-model")


def choose_model(
    name: str,
    revision: str | None,
    dtype: Dtype,
    devices: Sequence[Device],
    automatic: Automatic = GENERATOR,
    index_file: str = "model_index.json",
    *,
    variant: str | None = None,
    memory: Memory = "auto",
) -> ModelChoice:
    """Resolve a `model` setting; a model that is asked for by name is never replaced.

    Args:
        index_file: what a model's folder must hold.
        variant: of its weight files.
        memory: the mode that is asked for; `auto` takes the first that fits.

    Raises:
        InputError: neither a model folder nor a hub id.
        DeviceError: others use the memory that the automatic choice needs.
    """
    why = "as asked for"
    if name == "auto":
        name, why = _automatic(devices, automatic)
    mode = _mode(memory, dtype)
    in_mode = "" if mode == "full" else f"; memory mode {mode}"
    if name == SIMULATED:
        return ModelChoice(SIMULATED, SIMULATED, "Model: simulated device, as asked for.")
    if not _looks_like_folder(name):
        if not _HUB_ID.fullmatch(name):
            raise InputError(
                f"model: {name!r} is neither an existing folder nor a hub id "
                f"like {automatic.hub_id!r}."
            )
        identity = f"{name}@{revision}" if revision else name
        reason = f"Model: {name} ({why}{in_mode})."
        return ModelChoice(name, identity, reason, revision, dtype, variant, mode)
    folder = Path(os.path.realpath(user_path(name, "model")))
    is_demo = folder == automatic.demo
    identity = _folder_identity(folder, automatic.demo_identity if is_demo else None, index_file)
    shown = f"the embedded {automatic.demo_identity.replace('-', ' ')}" if is_demo else name
    reason = f"Model: {shown} ({why}{in_mode})."
    return ModelChoice(str(folder), identity, reason, revision, dtype, variant, mode)


def _mode(memory: Memory, dtype: Dtype) -> Mode:
    if memory == "fp8":
        return fp8_mode(dtype, [None])
    return "full" if memory == "auto" else memory


def _automatic(devices: Sequence[Device], automatic: Automatic) -> tuple[str, str]:
    """Name and reason."""
    gpus = [d for d in devices if d.kind == "cuda"]
    enough = f"{automatic.needed_bytes // 1024**3} GiB"
    if gpus and min(d.memory for d in gpus) >= automatic.needed_bytes:
        _check_free(gpus, automatic, enough)
        return automatic.hub_id, f"auto: every chosen GPU has {enough} or more"
    why = f"a chosen GPU has less than {enough}" if gpus else "no GPU is visible"
    if any(d.memory == 0 for d in gpus):
        why = f"a chosen GPU does not say whether it has {enough}"
    return str(automatic.demo), f"auto: {why}, which {automatic.hub_id} needs"


def _check_free(gpus: Sequence[Device], automatic: Automatic, enough: str) -> None:
    """Raises DeviceError where others use what the model needs.

    The demo model does not stand in then: a run that goes on while a GPU is busy would draw with
    another model than before.
    """
    for gpu in gpus:
        if gpu.free is not None and gpu.free < automatic.needed_bytes:
            free, total = (round(size / 1024**3) for size in (gpu.free, gpu.memory))
            raise DeviceError(
                f"model: auto means {automatic.hub_id} here, which needs {enough}, but only {free} "
                f"of the {total} GiB of {gpu.label} are free. Wait, choose other GPUs, or name a "
                f"model, such as {automatic.demo}."
            )


def _looks_like_folder(name: str) -> bool:
    return os.path.exists(user_path(name, "model")) or name.startswith((".", "/", "~"))


def _folder_identity(folder: Path, name: str | None, index_file: str) -> str:
    """Hash of file names, sizes and small configs: cheap, and changes with retrained weights.

    Weight files are told apart by their safetensors header and their first and last MiB.
    """
    if not os.path.isfile(folder / index_file):
        kind = "diffusers" if index_file == "model_index.json" else "transformers"
        raise InputError(f"model: {folder} is not a {kind} model folder: it has no {index_file}.")
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(os.fsencode(f"{file.relative_to(folder).as_posix()}:{size}\n"))
        with file.open("rb") as stream:
            add_ends(digest, stream, size, 1024**2)
    return f"{name or printable(folder.name)}#{digest.hexdigest()[:16]}"
