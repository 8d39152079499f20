"""Memory modes: the ways in which a model takes less GPU memory, and what each one changes."""

from typing import Literal

Memory = Literal[
    "auto", "full", "fp8", "int8", "nf4", "offload", "group_offload", "sequential_offload"
]
"""What the setting `memory` may say."""

Mode = Literal[
    "full", "fp8", "fp8_cast", "int8", "nf4", "offload", "group_offload", "sequential_offload"
]
"""What a worker is told. The setting `fp8` is `fp8` where every GPU computes in 8-bit floats and
torchao is installed, else `fp8_cast`: weights are stored in 8 bits and computed with in `dtype`."""

ALL_WEIGHTS_AS_THEY_ARE: frozenset[Mode] = frozenset(
    {"full", "offload", "group_offload", "sequential_offload"}
)
"""Modes whose arithmetic, and so whose pictures, are those of `full`: only the place differs."""


def changes_pixels(mode: Mode) -> bool:
    """A picture of this mode is another one than that of `full`."""
    return mode not in ALL_WEIGHTS_AS_THEY_ARE
