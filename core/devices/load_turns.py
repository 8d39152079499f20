"""How many workers may load the model at the same time, and how.

A big model's first load reads it from the disk, which several would only share. Those that follow
find it in the page cache. On its way to a GPU a model is mapped file by file: the mapped pages are
the cache's, of which the kernel takes back what it needs, so a load holds about one file of weights
in host memory. On a CPU, where weights wait in host memory for their turn on the GPU, and where
they are stored in 8 bits only once they are there, each worker holds the whole model.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core.checkpoints.single_file import inspect_single_file
from core.devices.host_memory import free_host_memory
from core.errors import InputError
from core.memory_modes import Mode, changes_pixels, comes_to_host_memory
from core.tasks import ROLES
from core.worker_spec import WorkerSpec

NO_LIMIT = 1000
BIG_MODEL_BYTES = 4 * 1024**3  # from here on loading is bound by disk and host memory
PARALLEL_LOADING = "HF_ENABLE_PARALLEL_LOADING"
_WEIGHTS = (".safetensors", ".gguf")


class LoadTurns:
    """Takes turns between workers that load the same model: how many may load at once.

    Args:
        setting: `concurrent_loads`: a number, or `auto`.
        spec: of one of the workers.
        available: bytes of host memory that can be had.
    """

    def __init__(
        self, setting: int | str, spec: WorkerSpec, available: Callable[[], int] = free_host_memory
    ) -> None:
        self._setting, self._spec, self._available = setting, spec, available
        self._known: list[int] | None = None  # sizes of the files of weights

    def change_to(self, memory: Mode) -> None:
        """A worker loads in another memory mode from now on, and the others may follow."""
        self._spec = replace(self._spec, memory=memory)

    def at_once(self, loaded: bool) -> int:
        """How many workers may load the model at once now.

        Args:
            loaded: a worker has loaded the model. Until then one tries alone, then the next one.
        """
        if isinstance(self._setting, int):
            return self._setting
        if self._spec.model == "simulated":
            return NO_LIMIT
        with suppress(OSError, InputError):  # removed meanwhile; whoever loads it says so
            self._known = self._known or _sizes_of_weights(self._spec)
        if not self._known or (not loaded and sum(self._known) >= BIG_MODEL_BYTES):
            return 1
        holds_all = self._spec.device == "cpu" or comes_to_host_memory(self._spec.memory)
        held = sum(self._known) if holds_all else max(self._known)
        return max(1, self._available() // 2 // max(1, held))


def loading_environment(spec: WorkerSpec) -> dict[str, str]:
    """Variables of the processes that import the libraries which load; the user's own value wins.

    diffusers then reads the files of a part in up to 8 threads, and asks for it as it is imported.
    On a CPU it would hold as many files more; weights that are turned into fewer bits on their way
    are read one after the other. transformers has threads of its own, and no such variable.
    """
    one_model = not ROLES[spec.role].of_pipelines
    if spec.device == "cpu" or one_model or changes_pixels(spec.memory):
        return {}
    return {PARALLEL_LOADING: os.environ.get(PARALLEL_LOADING, "1")}


def _sizes_of_weights(spec: WorkerSpec) -> list[int]:
    """Sizes of a model's files of weights, or of all its files where none has such a name."""
    path = Path(spec.model)  # also of a hub's model, which is here before anybody loads it
    if path.is_file():
        return [path.stat().st_size, *_beside_file(spec, path)]
    files = [file for file in path.rglob("*") if file.is_file()]
    weights = [file for file in files if file.suffix in _WEIGHTS]
    return [file.stat().st_size for file in weights or files]


def _beside_file(spec: WorkerSpec, model: Path) -> list[int]:
    """Sizes of the weights that a base model adds to a denoiser in one file."""
    if spec.base_model is None or inspect_single_file(model).whole:
        return []
    files = [file for kind in _WEIGHTS for file in Path(spec.base_model).glob(f"*/*{kind}")]
    others = [file for file in files if not file.parent.name.startswith(("transformer", "unet"))]
    return [file.stat().st_size for file in others]
