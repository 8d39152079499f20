"""What an exception in a worker means for its task and for the worker."""

import logging
import warnings

from core.errors import InputError, LoraError, MultiGPUError
from core.messages import FailureKind
from workers.channel import Channel

# Exceptions that another try with the same task or model would only repeat.
_DETERMINISTIC = (
    *(ValueError, TypeError, KeyError, AttributeError, ImportError),
    *(NotImplementedError, FileNotFoundError),
)
# Of the hub's client, although it is a FileNotFoundError: the hub did not answer as it should.
_UNREACHABLE = "LocalEntryNotFoundError"
_NO_SUCH_FILE = "no file named"  # diffusers and transformers say it in a plain OSError


def classify(error: BaseException) -> tuple[FailureKind, str]:
    """The kind of failure, and one line for the user."""
    text = " ".join(str(error).split()) or repr(error)
    if isinstance(error, LoraError):
        return "lora", text
    if isinstance(error, InputError):
        return "input", text
    if isinstance(error, MultiGPUError):
        return "error", text
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "out_of_memory", f"Out of memory: {text}"
    if name == "AcceleratorError" or "CUDA error" in text or "CUBLAS_STATUS" in text:
        return "device", f"The device failed: {text}"
    lasting = isinstance(error, _DETERMINISTIC) and name != _UNREACHABLE
    if lasting or (isinstance(error, OSError) and _NO_SUCH_FILE in text):
        return "input", f"{name}: {text}"
    return "error", f"{name}: {text}"


class _ToMain(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        # Libraries warn freely; only main's own log level decides who wants to read it.
        self._channel.log("DEBUG", f"{record.name}: {record.getMessage()}")


def set_up_logging(channel: Channel) -> None:
    """Nothing is printed from a worker: libraries' warnings become debug lines in main."""
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    root = logging.getLogger()
    root.handlers = [_ToMain(channel)]
