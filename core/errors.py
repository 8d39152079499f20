"""What can go wrong, named for what the user did or what broke."""


def one_line(text: str) -> str:
    """`text` without line breaks, terminal codes and halves of characters, as names may have."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class MultiGPUError(Exception):
    """Base of every error that this project raises on purpose; the message is for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputError(MultiGPUError):
    """A file, a setting or a task cannot be used as it stands."""


class LoraError(InputError):
    """A LoRA file is missing, damaged, not safetensors, or does not fit the model."""


class DeviceError(InputError):
    """The devices that were asked for are not there."""


class ModelLoadError(MultiGPUError):
    """The model can be loaded by no worker, now or later; the message says what to do about it."""


class LedgerError(MultiGPUError):
    """The record of a run cannot be opened: foreign, damaged, or held by another process."""


class StorageError(MultiGPUError):
    """The disk refused a write.

    Attributes:
        fatal: it would refuse every other one too (full, read-only, over quota, broken).
    """

    def __init__(self, message: str, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal
