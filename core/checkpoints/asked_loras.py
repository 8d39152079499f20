"""LoRAs that somebody names before any task does: to be loaded, pinned or unloaded."""

from collections.abc import Sequence
from pathlib import Path

from core.checkpoints.lora_files import LoraInspector, find_lora, lora_places
from core.errors import InputError, LoraError
from core.lora_stack import CheckedLora
from core.paths import as_text
from core.tasks import ROLES

Paths = str | Path | Sequence[str | Path]


def check_takes_loras(role: str) -> None:
    """Raises InputError for a kind of task that has no LoRAs."""
    if role not in ROLES:
        kinds = ", ".join(ROLES)
        raise InputError(f"role: there are no tasks of the kind {role!r}; there are {kinds}.")
    if "lora_path" not in ROLES[role].__dataclass_fields__:
        raise InputError(f"role: tasks of the kind {role!r} have no LoRAs.")


def find_loras(
    paths: Paths, folders: Sequence[Path], inspector: LoraInspector
) -> list[CheckedLora]:
    """The files that are meant, checked, each once.

    Args:
        paths: one, or several.
        folders: where relative paths are looked up, in this order.

    Raises:
        LoraError: there is no such file, or it is no LoRA.
    """
    found: dict[str, CheckedLora] = {}
    for path in _each(paths):
        try:
            file = find_lora(path, folders)
            sha256 = inspector.sha256(file)
        except InputError as error:
            raise LoraError(str(error).removeprefix("lora_path: ")) from None
        found.setdefault(sha256, CheckedLora(sha256, str(file), 1.0))
    return list(found.values())


def places_of(paths: Paths, folders: Sequence[Path]) -> list[str]:
    """Every path that may be meant, of files that need not be there any more.

    Raises:
        InputError: no file can have such a path.
    """
    places = [place for path in _each(paths) for place in lora_places(path, folders)]
    return list(dict.fromkeys(str(place.absolute()) for place in places))


def hashes_at(places: Sequence[str], inspector: LoraInspector) -> list[str]:
    """The content of LoRAs that are there now."""
    found = []
    for place in places:
        try:
            if Path(place).is_file():
                found.append(inspector.sha256(Path(place)))
        except (LoraError, OSError, ValueError):
            continue
    return found


def _each(paths: Paths) -> list[str]:
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return [as_text(path) if isinstance(path, Path) else path for path in given]
