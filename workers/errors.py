"""What an exception in a worker means for its task and for the worker."""

import re
from collections.abc import Iterator

from core.errors import InputError, LoraError, MultiGPUError
from core.messages import FailureKind

# Exceptions that another try with the same task or model would only repeat.
_DETERMINISTIC = (
    *(ValueError, TypeError, KeyError, AttributeError, ImportError),
    *(NotImplementedError, FileNotFoundError),
)
# Of the hub's client, although it is a FileNotFoundError: the hub did not answer as it should.
_UNREACHABLE = "LocalEntryNotFoundError"
# diffusers and transformers say it in a plain OSError, also where the hub did not answer.
_NO_SUCH_FILE = re.compile(
    "no file named|does not appear to have a file named|not a valid model identifier"
    "|without having git-lfs installed"  # pointers to the files lie in their places
)
# How diffusers and transformers begin what they raise, a RuntimeError, for an import that failed.
_LAZY_IMPORT = "Failed to import "
_DAMAGED = "SafetensorError"  # what a file of weights is whose header or length is wrong
# What CUDA and its libraries say through torch and Triton, which have no classes for all of it.
_OUT_OF_MEMORY = re.compile(
    r"(CUDA( driver)? error|Triton Error \[CUDA\]): out of memory"
    r"|\bCU[A-Z]+_\w*ALLOC(ATION)?_FAILED"
    # torch's allocator asks NVML how much memory is left before it says that there is none, and
    # fails this assertion where NVML does not answer, as under MIG and in some containers.
    r"|NVML_SUCCESS == r INTERNAL ASSERT"
    # cuDNN's plans need workspace: torch tries one after the other, and passes over each one's lack
    # of memory.
    r"|unable to find an engine to execute this computation"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory"
)
_DEVICE = re.compile(
    r"\b((CUDA( driver)?|cuDNN( Frontend)?|cuBLAS|cuSOLVER|cuSPARSE|cuDSS|cuFFT|NCCL) error"
    r"|Triton Error \[CUDA\]|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_|CUFFT_)",
    re.IGNORECASE,
)


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
    short = isinstance(error, MemoryError) or name == "OutOfMemoryError"
    if short or _OUT_OF_MEMORY.search(text):
        return "out_of_memory", f"Out of memory: {text}"
    if name == "AcceleratorError" or _DEVICE.search(text):
        return "device", f"The device failed: {text}"
    causes = list(causes_of(error))
    if any(type(cause).__name__ == _UNREACHABLE for cause in causes):
        return "error", f"The hub cannot be reached ({causes[-1]}): {text}"
    not_imported = [cause for cause in causes if isinstance(cause, ImportError)]
    if not_imported and (error in not_imported or text.startswith(_LAZY_IMPORT)):
        # What is at the bottom says more than the three lines that diffusers puts around it.
        return "exception", f"A Python package is missing or of another version: {not_imported[-1]}"
    missing = isinstance(error, OSError) and _NO_SUCH_FILE.search(text)
    damage = next((c for c in causes if type(c).__name__ == _DAMAGED), None)
    lasting = missing or damage is not None or isinstance(error, _DETERMINISTIC)
    kind: FailureKind = "exception" if lasting else "error"
    why = f" (the file is damaged or not complete: {damage})" if damage not in (None, error) else ""
    return kind, f"{name}: {text}{why}"


# What CUDA says of a machine on which it will never work as it stands.
_HOPELESS = re.compile(
    r"not compiled with CUDA|no NVIDIA driver|driver on your system is too old"
    r"|driver version is insufficient|no kernel image is available"
    r"|No CUDA GPUs are available|you might not have a CUDA gpu",
    re.IGNORECASE,
)


def classify_at_boot(error: BaseException) -> tuple[FailureKind, str]:
    """Like `classify`, for a worker's start: what no other try here can change is told so."""
    kind, text = classify(error)
    return "input" if _HOPELESS.search(text) else kind, text


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and all that led to it."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def blames_no_file(error: Exception) -> bool:
    """Whether loading a file ended in an error of memory, device or disk, and may work again."""
    return isinstance(error, OSError) or classify(error)[0] in ("out_of_memory", "device")
