"""What requests of OpenAI's Images API mean here: parameters, tasks, answers, batch files.

Whoever reads such requests stands on this: the daemon, and the command line. Public names, each
loaded when it is first asked for: `run_batch` runs a batch file on a generator.

https://platform.openai.com/docs/api-reference/images
https://platform.openai.com/docs/guides/batch
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.openai_images.batch import BatchOutcome, run_batch

__all__ = ["BatchOutcome", "run_batch"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("apps.openai_images.batch"), name)
    return value
