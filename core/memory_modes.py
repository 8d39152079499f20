"""Memory modes: ways in which a model takes less GPU memory, what each needs and what it changes.

Nothing here loads anything: workers do (`workers.models.memory`, `workers.judges.memory`), and main
works out from these facts what fits.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from core.errors import InputError
from core.tasks import ROLES

Memory = Literal[
    "auto", "full", "fp8", "int8", "nf4", "offload", "group_offload", "sequential_offload"
]
"""What the setting `memory` may say."""

Mode = Literal[
    "full", "fp8", "fp8_cast", "int8", "nf4", "offload", "group_offload", "sequential_offload"
]
"""What a worker is told. The setting `fp8` is `fp8` where every GPU computes in 8-bit floats and
torchao is installed, else `fp8_cast`: weights are stored in 8 bits and computed with in `dtype`."""

Held = Literal["all", "a component", "layers"]
Capability = tuple[int, int]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Facts:
    """What a mode does, and what it needs.

    Attributes:
        weight_bytes: that a weight of a layer in fewer bits takes, its share of scales included;
            None where all weights stay in `dtype`.
        convolutions: their weights are stored in fewer bits, too.
        package: the Python package that it needs.
        held: what is in the GPU's memory at a time: all weights, those of one component of the
            pipeline, or those of a few layers.
        capability: the least compute capability of its GPUs.
        on_cpu: it works without a GPU.
        multiple: of which a linear layer's inputs and outputs have to be; another one stays as it
            is.
        compiles: blocks may be compiled: their weights stay as and where they are as they run.
    """

    weight_bytes: float | None = None
    convolutions: bool = False
    package: str | None = None
    held: Held = "all"
    capability: Capability = (0, 0)
    on_cpu: bool = False
    multiple: int = 1
    compiles: bool = True


FACTS: dict[Mode, Facts] = {
    "full": Facts(on_cpu=True),
    # torch._scaled_mm computes in 8-bit floats from Ada and Hopper on, by 16 at a time.
    "fp8": Facts(1.0, package="torchao", capability=(8, 9), multiple=16),
    "fp8_cast": Facts(1.0, convolutions=True, on_cpu=True, compiles=False),
    "int8": Facts(1.0, package="torchao", on_cpu=True),
    # Half a byte, and a float32 scale for every 64 weights. diffusers refuses it on a CPU.
    "nf4": Facts(0.5 + 4 / 64, package="bitsandbytes"),
    "offload": Facts(held="a component"),
    "group_offload": Facts(held="layers", compiles=False),
    "sequential_offload": Facts(held="layers", compiles=False),
}
"""In the order in which `auto` looks for the first that fits; of fp8's two kinds it takes one."""

PACKAGES = {"torchao": "torchao==0.18.0", "bitsandbytes": "bitsandbytes==0.50.2"}
"""What pip is asked for, as in requirements-extra.txt."""

Part = Literal["denoiser", "encoder"]

_KEPT: dict[Part, re.Pattern[str]] = {
    # Modulation is kept where it is small; of Qwen-Image, where it is a third of all weights,
    # only that of the first block.
    "denoiser": re.compile(
        r"embed|norm|modulation|adaln|final_layer|time_emb_proj"
        r"|^(proj|img|txt|conv)_(in|out)$|^transformer_blocks\.0\.(img|txt)_mod\b"
    ),
    # What sees pictures is small, and T5 asks the type of its `wo` what it should compute in.
    "encoder": re.compile(r"embed|norm|visual|vision|projector|lm_head|\bwo$"),
}


def part_of(component: str, class_name: str) -> Part | None:
    """Which part of a pipeline a component of its model_index.json is; None: kept as it is.

    CLIP's text encoders are kept: they are small, and LoRAs may change them.
    """
    if re.fullmatch(r"transformer(_\d)?|unet", component):
        return "denoiser"
    if component.startswith("text_encoder") and not class_name.startswith("CLIP"):
        return "encoder"
    return None


def is_kept(part: Part, layer: str) -> bool:
    """Whether a layer stays in `dtype` in every mode; `layer` is its name without `.weight`.

    Others are stored in fewer bits if they are linear, or convolutions where the mode says so.
    A judge is an encoder.
    """
    return _KEPT[part].search(layer) is not None


ALL_WEIGHTS_AS_THEY_ARE = frozenset[Mode](m for m, f in FACTS.items() if f.weight_bytes is None)
"""Modes whose arithmetic, and so whose pictures, are those of `full`: only the place differs."""


def changes_pixels(mode: Mode) -> bool:
    """A picture of this mode is another one than that of `full`."""
    return mode not in ALL_WEIGHTS_AS_THEY_ARE


def comes_to_host_memory(mode: Mode) -> bool:
    """The whole model is loaded into host memory, from which its mode moves it where it belongs.

    With a package, weights are stored in fewer bits one by one on their way to the GPU.
    """
    return mode != "full" and FACTS[mode].package is None


def installed(package: str) -> bool:
    """Whether a package is installed. It is not imported: that would ask CUDA for its devices."""
    try:
        return find_spec(package) is not None
    except ValueError:  # an entry of sys.modules without a spec
        return False


def fp8_mode(dtype: Dtype, capabilities: list[Capability | None]) -> Mode:
    """What the setting `fp8` means.

    Args:
        dtype: as set.
        capabilities: compute capability of every device; None for a CPU, or where unknown.
    """
    facts = FACTS["fp8"]
    capable = all(c is not None and c >= facts.capability for c in capabilities)
    assert facts.package is not None
    # Rows of weights with a scale each come from bfloat16 alone.
    able = capable and dtype in ("auto", "bfloat16") and installed(facts.package)
    return "fp8" if able else "fp8_cast"


def refuse_unusable(mode: Mode, role: str, on_cpu: bool, key: str = "memory") -> None:
    """Say at once, before any worker starts, what cannot work.

    Args:
        role: of the model: generate, edit or score.
        key: the setting, as messages name it.

    Raises:
        InputError: the mode needs a GPU, or a package that is missing, or is none for a judge.
    """
    facts = FACTS[mode]
    if on_cpu and not facts.on_cpu:
        raise InputError(
            f"{key}: {mode} needs a GPU, and this run has none; "
            "full, fp8 and int8 work on a CPU, too."
        )
    if not ROLES[role].of_pipelines and facts.held == "a component":
        raise InputError(
            f"{key}: {mode} keeps one component of a pipeline at a time on the GPU, and a judge is "
            "one component; group_offload and sequential_offload keep a few of its layers there."
        )
    if facts.package is not None and not installed(facts.package):
        command = f"pip install {PACKAGES[facts.package]}"
        raise InputError(f"{key}: {mode} needs {facts.package}, which is missing: {command}")
