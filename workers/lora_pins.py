"""LoRAs that stay in a worker's memory whatever else its tasks use."""

from collections.abc import Callable, Collection, Iterator

from core.errors import MultiGPUError
from core.lora_paths import file_or_folder


class Pins(Collection[str]):
    """Content hashes of pinned LoRAs.

    Args:
        log: logs a line in main: level and text.
    """

    def __init__(self, log: Callable[[str, str], None]) -> None:
        self._log = log
        self._names: dict[str, str] = {}  # by sha256

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def check_room(self, sha256: str, capacity: int) -> None:
        """Raises MultiGPUError if as many others are pinned as are kept."""
        if len(self._names.keys() - {sha256}) >= capacity:
            raise MultiGPUError(
                f"Memory ran out here before, so at most {capacity} LoRAs are kept, and as many "
                "others are pinned."
            )

    def add(self, sha256: str, path: str) -> None:
        self._names[sha256] = file_or_folder(path)

    def remove(self, sha256: str) -> None:
        """Let a LoRA be displaced like any other; it may be none of these."""
        self._names.pop(sha256, None)

    def give_up(self, dropped: Collection[str]) -> None:
        """Forget those among LoRAs that had to leave for want of memory, and say so."""
        names = [self._names.pop(sha256) for sha256 in dropped if sha256 in self._names]
        if names:
            self._log(
                "WARNING",
                f"out of memory: pinned LoRAs are dropped, too ({', '.join(names)}); they are "
                "pinned here again when the worker starts anew",
            )
