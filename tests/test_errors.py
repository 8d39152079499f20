"""What an exception in a worker means: whether its task, or its device, is to blame."""

import errno
import shutil
from pathlib import Path

import pytest

from core.errors import InputError, LoraError
from core.validation import shown_path
from workers.errors import classify, classify_at_boot


class AcceleratorError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA driver error: device-side assert triggered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN Frontend error: [cudnn_frontend] Error: CUDNN_BACKEND_TENSOR_DESCRIPTOR failed",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
        "cuFFT error: CUFFT_EXEC_FAILED",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "NCCL Error 1: unhandled cuda error",
        "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:268, unhandled cuda error",
    ],
)
def test_an_error_that_ends_the_device_context_is_the_devices(text: str) -> None:
    assert classify(RuntimeError(text))[0] == "device"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:135] err == 0. DefaultCPUAllocator: can't "
            "allocate memory: you tried to allocate 1 bytes. Error code 12"
        ),
        AcceleratorError("CUDA error: out of memory"),
        RuntimeError(
            "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1131, please "
            "report a bug to PyTorch."
        ),
    ],
)
def test_too_little_memory_is_no_broken_device(error: Exception) -> None:
    assert classify(error)[0] == "out_of_memory"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AcceleratorError("unknown"), "device"),
        (LoraError("a LoRA"), "lora"),
        (InputError("a file"), "input"),
        (ValueError("height has to be divisible by 16"), "exception"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "exception"),
        (KeyError("a"), "exception"),
        (OSError(errno.ESTALE, "stale file handle"), "error"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied; see CUDA's manual"), "error"),
    ],
)
def test_other_errors_go_by_their_class(error: Exception, kind: str) -> None:
    assert classify(error)[0] == kind


@pytest.mark.parametrize(
    ("text", "lasts"),
    [
        ("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU", True),
        ("The NVIDIA driver on your system is too old (found version 11040).", True),
        ("CUDA error: CUDA driver version is insufficient for CUDA runtime version", True),
        ("CUDA error: no kernel image is available for execution on the device", True),
        ("No CUDA GPUs are available", True),
        ("CUDA error: out of memory", False),  # for a context: somebody else may leave
        ("CUDA error: all CUDA-capable devices are busy or unavailable", False),
    ],
)
def test_a_start_that_no_other_try_can_change_is_told_from_one_that_may_pass(
    text: str, lasts: bool
) -> None:
    kind, said = classify_at_boot(RuntimeError(text))
    assert (kind == "input") == lasts
    assert text in said and "\n" not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is damaged or not complete"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    ],
)
@pytest.mark.parametrize("part", ["transformer/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_are_not_whole_are_no_matter_of_another_try(
    tiny_model: Path, tmp_path: Path, part: str, content: bytes, said: str
) -> None:
    """As a download that was cut off leaves them, and a clone without Git LFS."""
    from diffusers import DiffusionPipeline

    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / f"{part}.safetensors").write_bytes(content)
    with pytest.raises(Exception) as failure:
        DiffusionPipeline.from_pretrained(model, use_safetensors=True)
    kind, text = classify(failure.value)
    assert kind == "exception", text
    if part.startswith("transformer"):  # transformers says something of its own
        assert said in text


def test_a_long_path_keeps_the_name_of_its_file() -> None:
    told = shown_path("/data/" + "very_long_folder/" * 20 + "gone.png")
    assert told.startswith("'…") and told.endswith("/gone.png'") and len(told) <= 80
    assert shown_path("gone.png") == "'gone.png'"
