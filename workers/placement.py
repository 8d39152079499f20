"""Places the parts of a model on a worker's GPUs. Pure: sizes in, places out.

A part that fits into one GPU stays whole. A larger one is split between its blocks: all else of it,
where its own arithmetic runs, is at home on the first GPU, and the blocks follow each other from
there on. Nothing is ever left to the host's memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.devices.memory_needs import GIB
from core.errors import InputError

HOME = 0  # the GPU on which a pipeline makes its noise, and decodes
STEPS = 40  # halvings, in which the even filling of GPUs is looked for


@dataclass(frozen=True)
class Part:
    """A module of a pipeline that takes GPU memory.

    Attributes:
        kind: its class, for the user.
        fixed: bytes that stay together: all but the blocks.
        blocks: name and bytes of each block, in the order in which they run; none = never split.
        at_home: it has to be on the first GPU, whole.
    """

    name: str
    kind: str
    fixed: int
    blocks: tuple[tuple[str, int], ...] = ()
    at_home: bool = False

    @property
    def size(self) -> int:
        return self.fixed + sum(size for _, size in self.blocks)


@dataclass(frozen=True)
class Place:
    """Place of a part: whole on `gpu`, or split, with `blocks` on GPUs of their own."""

    gpu: int
    blocks: dict[str, int] = field(default_factory=dict)

    @property
    def is_split(self) -> bool:
        return any(gpu != self.gpu for gpu in self.blocks.values())


def place(parts: Sequence[Part], room: Sequence[int]) -> dict[str, Place]:
    """The place of each part.

    Args:
        room: bytes for weights on each GPU, beside what work on them takes.

    Raises:
        InputError: a part does not fit, even split.
    """
    left = list(room)
    places: dict[str, Place] = {}
    # The fixed share of what no GPU can hold whole is at home; others must not take its room.
    too_large = [part for part in parts if part.blocks and part.size > max(room)]
    left[HOME] -= sum(part.fixed for part in too_large)
    rest = [part for part in parts if part not in too_large]
    to_split = list(too_large)
    for part in sorted(rest, key=lambda p: (not p.at_home, -p.size)):
        gpu = HOME if part.at_home else max(range(len(left)), key=lambda g: left[g])
        if part.size <= left[gpu]:
            left[gpu] -= part.size
            places[part.name] = Place(gpu)
        elif part.blocks:
            left[HOME] -= part.fixed
            to_split.append(part)
        else:
            raise InputError(_too_large_for_one(part, left[gpu], len(room)))
    for part in to_split:
        sizes = [size for _, size in part.blocks]
        gpus = _evenly(sizes, left) if left[HOME] >= 0 else None
        if gpus is None:
            raise InputError(_too_large(part, left, room))
        for gpu, size in zip(gpus, sizes, strict=True):
            left[gpu] -= size
        names = [name for name, _ in part.blocks]
        places[part.name] = Place(HOME, dict(zip(names, gpus, strict=True)))
    return places


def _evenly(sizes: Sequence[int], left: Sequence[int]) -> list[int] | None:
    """GPUs in rising order, one for each size, that leave about as much free everywhere."""
    found = _in_order(sizes, left)
    least, most = 0.0, float(max(left))
    for _ in range(STEPS if found else 0):
        spare = (least + most) / 2
        fuller = _in_order(sizes, [size - spare for size in left])
        found, least, most = (fuller, spare, most) if fuller else (found, least, spare)
    return found


def _in_order(sizes: Sequence[int], left: Sequence[float]) -> list[int] | None:
    """The first GPU is filled first, then the next; None if they are too many."""
    gpus, gpu, used = [], 0, 0
    for size in sizes:
        while gpu < len(left) and used + size > left[gpu]:
            gpu, used = gpu + 1, 0
        if gpu == len(left):
            return None
        gpus.append(gpu)
        used += size
    return gpus


def _too_large_for_one(part: Part, left: int, gpus: int) -> str:
    return (
        f"gpus_per_worker: {gpus}: {part.name} ({part.kind}) needs {_gib(part.size)} on one GPU, "
        f"because it cannot be split, and there is room for {_gib(left)} beside the other parts "
        "and what drawing takes. Use GPUs with more free memory, or a smaller model."
    )


def _too_large(part: Part, left: Sequence[int], room: Sequence[int]) -> str:
    there = [*left]
    there[HOME] += part.fixed
    shown = " + ".join(_gib(size) for size in there)
    return (
        f"gpus_per_worker: {len(room)}: {part.name} ({part.kind}) needs {_gib(part.size)} of GPU "
        f"memory, and there is room for {shown} beside the other parts and what drawing takes. "
        "Raise gpus_per_worker, use GPUs with more free memory, or a smaller model."
    )


def _gib(size: float) -> str:
    return f"{max(0.0, size) / GIB:.1f} GiB"
