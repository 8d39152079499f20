"""Which model a run draws with, and the identity by which its pictures are told apart."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.devices import Device
from core.errors import InputError
from core.settings import PROJECT_DIR, Settings

Z_IMAGE_TURBO = "Tongyi-MAI/Z-Image-Turbo"
Z_IMAGE_TURBO_BYTES = 20 * 1024**3  # of GPU memory: 6B transformer + 4B text encoder, bf16
DEMO_MODEL = PROJECT_DIR / "demo_model" / "checkpoint"
SIMULATED = "simulated"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelChoice:
    """The model of a run.

    `path_or_id` is what diffusers loads; `identity` goes into fingerprints: it is the same
    for the same weights and names no machine's folders; `reason` is a line for the log.
    """

    path_or_id: str
    identity: str
    reason: str


def choose_model(settings: Settings, devices: Sequence[Device]) -> ModelChoice:
    """Resolve `model`; a model that is asked for by name is never replaced.

    Raises:
        InputError: neither a diffusers folder nor a hub id.
    """
    name = settings.model
    if name == "auto":
        return _automatic(devices, settings.revision)
    if name == SIMULATED:
        return ModelChoice(SIMULATED, SIMULATED, "Model: simulated device, as asked for.")
    if _looks_like_folder(name):
        folder = Path(name).expanduser().resolve()
        return ModelChoice(str(folder), _folder_identity(folder), f"Model: {name}, as asked for.")
    return _hub_model(name, settings.revision, "as asked for")


def _automatic(devices: Sequence[Device], revision: str | None) -> ModelChoice:
    gpus = [d for d in devices if d.kind == "cuda"]
    enough = f"{Z_IMAGE_TURBO_BYTES // 1024**3} GiB"
    if gpus and min(d.memory for d in gpus) >= Z_IMAGE_TURBO_BYTES:
        return _hub_model(Z_IMAGE_TURBO, revision, f"auto: every chosen GPU has {enough} or more")
    why = f"a chosen GPU has less than {enough}" if gpus else "no GPU is visible"
    return ModelChoice(
        str(DEMO_MODEL),
        _folder_identity(DEMO_MODEL, "demo-model"),
        f"Model: the embedded demo model (auto: {why}, which Z-Image-Turbo needs).",
    )


def _hub_model(name: str, revision: str | None, why: str) -> ModelChoice:
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"model: {name!r} is neither an existing folder nor a hub id like {Z_IMAGE_TURBO!r}."
        )
    identity = f"{name}@{revision}" if revision else name
    return ModelChoice(name, identity, f"Model: {name} ({why}).")


def _looks_like_folder(name: str) -> bool:
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~"))


def _folder_identity(folder: Path, name: str | None = None) -> str:
    """Hash of file names, sizes and small configs: cheap, and changes with retrained weights.

    Weight files are told apart by their safetensors header and their first and last MiB.
    """
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"model: {folder} is not a diffusers model folder: it has no model_index.json."
        )
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}:{size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1024**2))
            if size > 1024**2:
                stream.seek(max(1024**2, size - 1024**2))
                digest.update(stream.read())
    return f"{name or folder.name}#{digest.hexdigest()[:16]}"
