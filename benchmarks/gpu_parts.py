"""The parts of `benchmarks.gpu`: `python -m benchmarks.gpu_parts NAME --out … --work …` runs one.

A part imports what it needs when it runs, so that the list costs nothing.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.gpu_threads import show


@dataclass(frozen=True)
class Place:
    """What a part is told.

    Attributes:
        work: for checkpoints; lost afterwards.
        tiny: tiny models on the CPU, to try the benchmark itself.
    """

    out: Path
    work: Path
    tiny: bool

    @property
    def device(self) -> str:
        return "cpu" if self.tiny else "cuda"

    @property
    def z_image(self) -> Path:
        """The checkpoint that the part z-image-make writes."""
        return self.work / "checkpoints" / "z-image"


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        function: `module.function` below `benchmarks`.
        least: seconds below which it is not begun.
        most: seconds after which it is ended.
        loads_z_image: it needs the checkpoint that z-image-make writes.
    """

    name: str
    function: str
    least: float
    most: float
    loads_z_image: bool = False


PARTS = (
    Part("machine", "gpu_checks.machine", 5, 30),
    Part("fork-server", "gpu_checks.fork_server", 20, 120),
    Part("cuda-tests", "gpu_checks.cuda_tests", 30, 260),
    Part("z-image-make", "gpu_z_image.make", 30, 120),
    Part("z-image-plain", "gpu_z_image.plain", 20, 90, loads_z_image=True),
    Part("engine", "gpu_z_image.engine", 30, 120, loads_z_image=True),
    Part("z-image-compiled", "gpu_z_image.compiled", 40, 150, loads_z_image=True),
    Part("z-image-worker", "gpu_z_image.worker", 20, 120, loads_z_image=True),
    Part("z-image-fp8", "gpu_z_image.fp8", 40, 120, loads_z_image=True),
    Part("memory-modes", "gpu_z_image.memory_modes", 40, 180, loads_z_image=True),
    Part("qwen-image-edit", "editing.on_gpu", 60, 150),
    Part("qwen3-vl", "judging.on_gpu", 40, 120),
    Part("models", "gpu_checks.models", 40, 130),
    Part("multi-gpu", "gpu_checks.multi_gpu", 20, 90),
    Part("edit-demo", "gpu_checks.edit_demo", 20, 90),
    Part("z-image-cudnn", "gpu_z_image.cudnn", 20, 60, loads_z_image=True),
    Part("z-image-flash", "gpu_z_image.flash", 20, 60, loads_z_image=True),
)
"""What says most comes first: whether it works there, then the engine, then what speeds it up."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("name", choices=[part.name for part in PARTS])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    part = next(part for part in PARTS if part.name == options.name)
    place = Place(options.out, options.work, options.tiny)
    if part.loads_z_image and not place.z_image.is_dir():
        sys.exit(f"there is no checkpoint at {place.z_image}: have z-image-make run before.")
    module, _, name = part.function.partition(".")
    function: Callable[[Place], None] = getattr(import_module(f"benchmarks.{module}"), name)
    try:
        function(place)
    finally:
        show(f"the part {part.name}")


if __name__ == "__main__":
    main()
