"""Previews of a pipeline's denoising: what the picture would be, as a small picture.

Every pipeline of diffusers hands its scheduler what the model predicts, and the latents that it
predicts it for. There a preview is taken: latents without noise follow from these two, and they
show the picture after one step, where the latents themselves still show noise. Compiled blocks,
step caches and callbacks are not touched, and no random number is drawn: the picture stays as it
is, bit by bit. The device's results are read by the saver's thread, while the device goes on.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from PIL import Image

from core.errors import one_line
from core.messages import Lease
from workers.models.base import Log
from workers.models.latents import clean_latents, decode_small
from workers.pixels import to_bytes, to_image
from workers.previews import Sketch, TellPreview, preview_steps


class DenoisingPreviews:
    """The previews of a loaded pipeline, and of its sisters.

    Args:
        tell: is handed each preview.
        log: is told once if none can be made.
    """

    def __init__(self, tell: TellPreview, log: Log) -> None:
        self._tell = tell
        self._log = log
        self._has_failed = False

    def of(self, leases: Sequence[Lease], pipeline: Any) -> AbstractContextManager[None]:
        """Take the previews that leases ask for from the one call of a pipeline inside."""
        wanted = any(lease.previews for lease in leases)
        scheduler = getattr(pipeline, "scheduler", None)
        if not wanted or not hasattr(scheduler, "step"):
            return nullcontext()
        return self._watched(_Call(pipeline, leases))

    @contextmanager
    def _watched(self, call: "_Call") -> Iterator[None]:
        pipeline = call.pipeline
        with (
            _in_place_of(pipeline.scheduler, "step", functools.partial(self._step, call)),
            _in_place_of(pipeline, "prepare_latents", functools.partial(_sized, call)),
        ):
            yield

    def _step(self, call: "_Call", step: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(step)

        @functools.wraps(step)  # pipelines look at its signature
        def watched(*args: Any, **given: Any) -> Any:
            result = step(*args, **given)
            try:
                taken = signature.bind(*args, **given).arguments
                for sketch in call.after_step(taken, result):
                    self._tell(sketch)
            except Exception as error:  # such as a lack of memory: the picture does without
                call.give_up()
                self._note(type(call.pipeline).__name__, error)
            return result

        return watched

    def _note(self, name: str, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._log("WARNING", one_line(f"no preview of {name}: {error!r}")[:300])


class _Call:
    """One call of a pipeline, as seen by its scheduler.

    Attributes:
        size: height and width in pixels of what is drawn, once that is known.
    """

    def __init__(self, pipeline: Any, leases: Sequence[Lease]) -> None:
        self.size: tuple[int, int] | None = None
        self.pipeline = pipeline
        self._leases = leases
        self._passes = 0  # that the scheduler has seen
        self._due: list[dict[int, int]] | None = None  # by lease: pass to the preview's number

    def give_up(self) -> None:
        """Take no more previews."""
        self._due = []

    def after_step(self, taken: dict[str, Any], result: Any) -> Iterator[Sketch]:
        """The previews that are due after a pass of the scheduler.

        Args:
            taken: its arguments.
        """
        scheduler = self.pipeline.scheduler
        all_passes = len(scheduler.timesteps)  # of some schedulers two to a step
        steps = getattr(scheduler, "num_inference_steps", None) or all_passes
        if self._due is None:
            self._due = [preview_steps(lease.previews, all_passes) for lease in self._leases]
        self._passes += 1
        rows = [row for row, due in enumerate(self._due) if self._passes in due]
        if not rows:
            return
        clean = clean_latents(scheduler, taken, result)[rows]
        pixels = decode_small(self.pipeline, clean, self.size)
        for index, row in enumerate(rows):
            yield Sketch(
                self._leases[row],
                self._due[row][self._passes],
                max(1, self._passes * steps // all_passes),
                steps,
                functools.partial(_picture, pixels[index : index + 1]),
            )


def _sized(call: _Call, prepare: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline's `prepare_latents`, which all know the size of what is drawn."""
    signature = inspect.signature(prepare)

    @functools.wraps(prepare)
    def prepared(*args: Any, **given: Any) -> Any:
        taken = signature.bind(*args, **given).arguments
        if "height" in taken and "width" in taken:
            call.size = (int(taken["height"]), int(taken["width"]))
        return prepare(*args, **given)

    return prepared


@contextmanager
def _in_place_of(
    owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Put `around(method)` in place of an object's method, if it has it, for a while."""
    method = getattr(owner, name, None)
    if method is None:
        yield
        return
    own = vars(owner).get(name)  # put there by somebody else
    setattr(owner, name, around(method))
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _picture(pixels: torch.Tensor) -> Image.Image:
    """Make a picture of [1, 3, height, width] in -1..1; waits for the device."""
    return to_image(to_bytes((pixels / 2 + 0.5).clamp(0, 1))[0])
