"""Qwen-Image, and Qwen-Image-2.1, which draws and edits.

Qwen-Image's pipeline encodes 1024 tokens, and then drops those behind 512 unless told otherwise.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from workers.attention import as_the_last
from workers.calls import Call
from workers.models.family import DENOISERS, FAMILIES, Denoiser, Family


def sequence_length(pipeline: Any) -> dict[str, int]:
    """The length of a prompt in tokens that the pipeline encodes."""
    return {"max_sequence_length": pipeline.tokenizer_max_length}


def captions_apart(forward: Call) -> Call:
    """Draw several pictures at once, their captions filled up to the longest."""
    signature = inspect.signature(forward)

    @functools.wraps(forward)
    def apart(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        mask = call.arguments.get("encoder_hidden_states_mask")
        if mask is None:
            return forward(*args, **kwargs)
        parts = []
        for row, length in enumerate(_lengths(mask)):
            own = {name: _row(value, row, len(mask)) for name, value in call.arguments.items()}
            own["encoder_hidden_states"] = own["encoder_hidden_states"][:, :length]
            own["encoder_hidden_states_mask"] = None
            parts.append(forward(**own))
        return as_the_last(parts[-1], torch.cat([part[0] for part in parts]))

    return apart


def _lengths(mask: Any) -> list[int]:
    """How many tokens each row of a mask shows.

    It stays with the mask, which is the same in all steps: to read it is to wait for the device.
    """
    if not hasattr(mask, "lengths"):
        mask.lengths = mask.sum(-1).int().tolist()
    lengths: list[int] = mask.lengths
    return lengths


def _row(value: Any, row: int, rows: int) -> Any:
    """One picture's share of an argument."""
    if isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == rows:
        return value[row : row + 1]
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == rows:
        return value[row : row + 1]
    return value


FAMILIES.add("QwenImagePipeline", Family(sequence_length=sequence_length))
FAMILIES.add("QwenImage21", Family(several_pictures=True))
DENOISERS.add(
    "QwenImageTransformer2DModel",
    Denoiser(
        any_length=True,
        step_caches=frozenset({"first_block", "taylorseer", "mag"}),
        apart=captions_apart,
        usual_names=True,  # in its own repository
    ),
)
