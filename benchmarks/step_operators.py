"""What one step of a picture starts: `python -m benchmarks.step_operators`.

Z-Image with all its blocks, a 60th as wide, in bfloat16 on a CPU: width changes no count. A GPU of
512 x 512 pictures waits for Python to start these one by one.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode

from demo_model.architecture import build_pipeline

FEW, MANY = 2, 5  # steps
# Operators that look at memory in another way, and start nothing on a device.
VIEWS = (
    *("alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split"),
    *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view"),
    *("view_as_complex", "view_as_real", "_unsafe_view"),
)
Draw = Callable[[int], object]
"""Draws a picture in so many steps."""


class _Started(TorchDispatchMode):
    """Notes operators by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def started(draw: Draw, steps: int) -> Counter[str]:
    """How often each operator was started, by names such as `aten.mul.Tensor`."""
    with _Started() as mode:
        draw(steps)
    return Counter(mode.names)


def per_step(draw: Draw) -> dict[str, float]:
    """Operators that one more step starts."""
    draw(FEW)  # what is made once is made now
    few, many = started(draw, FEW), started(draw, MANY)
    more = {name: (many[name] - few[name]) / (MANY - FEW) for name in many}
    return {name: count for name, count in more.items() if count}


def main() -> None:
    torch.set_grad_enabled(False)
    pipeline = build_pipeline(dim=64, layers=1, vae_widths=(8, 16, 16, 16))
    blocks = {"n_layers": 30, "n_refiner_layers": 2}
    transformer = ZImageTransformer2DModel.from_config({**pipeline.transformer.config, **blocks})
    pipeline.transformer = transformer.eval()
    pipeline.to(torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)

    def draw(steps: int) -> object:
        return pipeline(
            prompt="a red house",
            width=64,
            height=64,
            num_inference_steps=steps,
            guidance_scale=0.0,
            generator=torch.Generator().manual_seed(0),
        )

    found = per_step(draw)
    kernels = {name: count for name, count in found.items() if name.split(".")[1] not in VIEWS}
    print(
        f"{sum(found.values()):.0f} operators a step, {sum(kernels.values()):.0f} of them kernels"
    )
    for name, count in sorted(kernels.items(), key=lambda each: -each[1])[:12]:
        print(f"{count:6.0f} {name}")


if __name__ == "__main__":
    main()
