"""Previews of a picture that is being drawn: after which steps, and what the saver needs of one."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL.Image import Image

from core.messages import Lease

LONGEST_SIDE = 384  # pixels, of a preview


@dataclass(frozen=True)
class Sketch:
    """A preview on its way to its file.

    Attributes:
        number: 1 for the first of its lease.
        step: of `total`, after which it was taken.
        picture: makes it; called by the saver's thread, where nothing waits for it.
    """

    lease: Lease
    number: int
    step: int
    total: int
    picture: Callable[[], Image]


TellPreview = Callable[[Sketch], None]


def preview_steps(previews: int, total: int) -> dict[int, int]:
    """The steps after which a preview is taken, each with the preview's number.

    They are spread evenly over `total` steps. The last step has none: what it gives is the
    picture itself. Where there are too few steps, there are fewer previews.
    """
    parts = previews + 1
    spread = ((part * total + parts // 2) // parts for part in range(1, parts))
    steps = dict.fromkeys(step for step in spread if 0 < step < total)
    return {step: number for number, step in enumerate(steps, start=1)}
