"""The main process: input, scheduling, supervision and records. Never imports model code.

The names here are what users import; each is loaded when it is first asked for, so that a worker
that needs one module of this package does not get all of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.errors import (
        DeviceError,
        InputError,
        LedgerError,
        LoraError,
        ModelLoadError,
        MultiGPUError,
        StorageError,
    )
    from core.multi_gpu_image_generator import MultiGPUImageGenerator
    from core.tasks import EditTask, GenerateTask, Lora, Result, ScoreTask

__all__ = [
    "DeviceError",
    "EditTask",
    "GenerateTask",
    "InputError",
    "LedgerError",
    "Lora",
    "LoraError",
    "ModelLoadError",
    "MultiGPUError",
    "MultiGPUImageGenerator",
    "Result",
    "ScoreTask",
    "StorageError",
]

_MODULES = {
    "MultiGPUImageGenerator": "core.multi_gpu_image_generator",
    **dict.fromkeys(("EditTask", "GenerateTask", "Lora", "Result", "ScoreTask"), "core.tasks"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES.get(name, "core.errors")), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
