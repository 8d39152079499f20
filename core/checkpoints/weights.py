"""Files of weights: which of a component's are loaded, and what their headers say of them."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoints.safetensors_header import read_header
from core.memory_modes import FACTS, Part, is_kept

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
# Tables that are looked up in: no layer's inputs are as wide as they are long.
_TABLE = re.compile(
    r"(embed_tokens|token_embedding|position_embedding|shared|relative_attention_bias)$"
)
_OF_LAYERS = ".weight"  # ends their names; a learned token by itself is a row, and no layer
_MULTIPLE = FACTS["fp8"].multiple
_OTHERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}  # the rest have one byte

# diffusers' and transformers' names: of a whole component, or of one of its shards.
_WEIGHTS = re.compile(
    r"(?P<stem>[\w-]+?)(\.(?P<variant>(?!safetensors)[\w.-]+?))?(?P<shard>-\d+-of-\d+)?\.safetensors"
)

_SHARD = re.compile(r"(\S+)-\d+-of-(\d+)\.safetensors")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file of weights; `dtype` as safetensors writes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """Sums over the tensors of one component; all but `as_stored` and `fixed` count numbers.

    Attributes:
        numbers: floating-point numbers in all.
        as_stored: bytes of them in the files.
        fixed: bytes of tensors of other types, which are loaded as they are.
        matrices: numbers in linear layers that some memory modes store in fewer bits.
        filters: the same of convolutions.
        largest_layer: most numbers in one layer.
        width: of what goes from block to block.
        widest: most inputs of a linear layer, the inner width of a block.
        uneven: numbers in those of the linear layers that arithmetic in 8 bits does not take.
        uneven_layers: how many these are.
    """

    numbers: int
    as_stored: int
    fixed: int
    matrices: int
    filters: int
    largest_layer: int
    width: int
    widest: int
    uneven: int = 0
    uneven_layers: int = 0

    @classmethod
    def of(cls, tensors: Iterable[Tensor], part: Part | None) -> "Weights":
        """Add tensors up.

        Args:
            part: which one of a pipeline they are; None for one that no mode makes smaller.
        """
        numbers = as_stored = fixed = matrices = filters = width = widest = 0
        uneven = uneven_layers = 0
        layers: Counter[str] = Counter()
        for tensor in tensors:
            count = math.prod(tensor.shape)
            if tensor.dtype not in FLOATS:
                fixed += count * _OTHERS.get(tensor.dtype, 1)
                continue
            numbers += count
            as_stored += count * FLOATS[tensor.dtype]
            layer = tensor.name.rpartition(".")[0]
            layers[layer] += count
            sides = len(tensor.shape)
            if sides == 2 and tensor.shape[1] > widest and not _TABLE.search(layer):
                width, widest = tensor.shape
            if sides > 1 and part is not None and not is_kept(part, layer):
                if sides == 2 and tensor.name.endswith(_OF_LAYERS):
                    matrices += count
                    is_uneven = any(side % _MULTIPLE for side in tensor.shape)
                    uneven += count * is_uneven
                    uneven_layers += is_uneven
                filters += count if sides > 2 else 0
        largest = max(layers.values(), default=0)
        sums = (numbers, as_stored, fixed, matrices, filters, largest, width, widest)
        return cls(*sums, uneven, uneven_layers)


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The safetensors files of one component that are loaded; [] where there are none.

    Raises:
        ValueError: not all of its shards are there, as in an unfinished download.
    """
    if not folder.is_dir():
        return []
    found = [folder / name for name in chosen_files(sorted(os.listdir(folder)), variant)]
    for name, count in _SHARD.findall(" ".join(file.name for file in found)):
        if len(found) != int(count):
            raise ValueError(f"{folder}: {len(found)} of {name}'s {int(count)} files are there")
    return found


def chosen_files(names: Sequence[str], variant: str | None) -> list[str]:
    """Files of a component that are loaded: those of the variant, else those without one.

    A file in one piece and shards of the same weights may lie side by side.
    """
    found = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
    of_variant = [match for match in found if match["variant"] == variant]
    found = of_variant or [match for match in found if match["variant"] is None]
    stems = {match["stem"] for match in found}
    usual = stems & {"diffusion_pytorch_model", "model"}  # beside other programs' files
    found = [match for match in found if not usual or match["stem"] in usual]
    shards = [match for match in found if match["shard"]]
    indexed = any(".safetensors.index" in name for name in names)
    whole = [match for match in found if not match["shard"]]
    return [match.string for match in (shards if shards and (indexed or not whole) else whole)]


def tensors_of(file: Path) -> Iterator[Tensor]:
    """The tensors of a safetensors file, from its header alone.

    Raises:
        OSError, ValueError: it cannot be read, or is no safetensors file.
    """
    header, _ = read_header(file, file.stat().st_size)
    yield from tensors_in(header)


def tensors_in(header: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that the header of a safetensors file names."""
    for name, entry in header.items():
        if name != "__metadata__":
            yield Tensor(name, str(entry["dtype"]), tuple(map(int, entry["shape"])))
