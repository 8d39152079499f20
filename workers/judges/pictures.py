"""The pictures of an edit as a judge sees them: read, and of the size that its protocol says."""

import math
from collections.abc import Iterable, Iterator

from PIL import Image

from core.judge_calls import Picture
from core.judge_protocol import JudgePrompts, PictureSize
from core.messages import Lease
from core.pictures.source_images import read_image
from core.tasks import ScoreTask

_CUBIC = Image.Resampling.BICUBIC
Pictures = dict[str, list[Image.Image]]
"""Pictures by kind, in the order of the task."""


def pictures_of(lease: Lease, prompts: JudgePrompts, area: int | None) -> Pictures:
    """The pictures that the questions may show, at most `area` pixels each."""
    task = lease.task
    assert isinstance(task, ScoreTask)
    seen = prompts.pictures_seen

    size = prompts.pictures

    def shown(kind: Picture, pictures: Iterable[Image.Image]) -> list[Image.Image]:
        wanted = size if size is not None and kind in size.of else None
        return [at_most(sized(picture, wanted), area) for picture in pictures]

    def read(paths: Iterable[str], name: str) -> Iterator[Image.Image]:
        return (read_image(lease.at(path), lease.files.get(path), name) for path in paths)

    targets = task.target_images if "target" in seen else ()
    references = task.reference_images if "references" in seen else ()
    return {
        "source": shown("source", read(task.source_images, "source_images")),
        "edited": shown("edited", [edited_picture(lease)]),
        "target": shown("target", read(targets, "target_images")),
        "references": shown("references", read(references, "reference_images")),
    }


def edited_picture(lease: Lease) -> Image.Image:
    """The edited picture, in the size of the first source where that is asked for.

    It is brought there as GEdit-Bench does: whatever its aspect ratio, and with the filter that
    Pillow takes where none is named.
    """
    task = lease.task
    assert isinstance(task, ScoreTask)
    edit = task.edited_image
    edited = read_image(lease.at(edit), lease.files.get(edit), "edited_image")
    if not task.at_source_size:
        return edited
    first = task.source_images[0]
    size = read_image(lease.at(first), lease.files.get(first), "source_images").size
    return edited if edited.size == size else edited.resize(size, _CUBIC)


def sized(picture: Image.Image, size: PictureSize | None) -> Image.Image:
    """A picture as a protocol wants it, with its own aspect ratio."""
    if size is None:
        return picture
    if size.step is not None and size.area is not None and not size.exactly:
        return _shrunk_to_steps(picture, size.area, size.step)
    if size.step is not None and size.area is not None:
        in_steps = _in_steps(picture.size, size.area, size.step)
        return picture if in_steps == picture.size else picture.resize(in_steps, _CUBIC)
    if size.longest_side is not None:
        longest = max(picture.size)
        if longest >= size.longest_side and not size.exactly:
            smaller = picture.copy()
            smaller.thumbnail((size.longest_side, size.longest_side))  # as RISEBench does
            return smaller
        sides = tuple(max(1, round(side * size.longest_side / longest)) for side in picture.size)
    else:
        assert size.area is not None
        # As GEdit-Bench rounds, and with the filter that Pillow takes where none is named.
        ratio = picture.width / picture.height
        width = math.sqrt(size.area * ratio)
        sides = max(1, int(width)), max(1, int(width / ratio))
    grows = sides[0] * sides[1] > picture.width * picture.height
    if sides == picture.size or (grows and not size.exactly):
        return picture
    return picture.resize((sides[0], sides[1]), _CUBIC)


def _shrunk_to_steps(picture: Image.Image, area: int, step: int) -> Image.Image:
    """A picture of at most `area` pixels, whose sides are rounded down to steps, as OmniContext's
    test_omnicontext_score.py does; where it has fewer pixels, only rounded down."""
    width, height = picture.size
    if width * height > area:
        ratio = math.sqrt(area / (width * height))
        width, height = int(width * ratio), int(height * ratio)
    sides = max(step, width // step * step), max(step, height // step * step)
    return picture if sides == picture.size else picture.resize(sides, _CUBIC)


def _in_steps(size: tuple[int, int], area: int, step: int) -> tuple[int, int]:
    """Sides of `step` pixels each, with about `area` of them: see `PictureSize.step`."""
    nearest = [max(step, round(side / step) * step) for side in size]
    if math.prod(nearest) > area:
        factor = math.sqrt(math.prod(size) / area)
        nearest = [max(step, math.floor(side / factor / step) * step) for side in size]
    elif math.prod(nearest) < area:
        factor = math.sqrt(area / math.prod(size))
        nearest = [math.ceil(side * factor / step) * step for side in size]
    return nearest[0], nearest[1]


def at_most(picture: Image.Image, area: int | None) -> Image.Image:
    """A picture, made smaller where it has more pixels than `area`."""
    if area is None or picture.width * picture.height <= area:
        return picture
    factor = (area / (picture.width * picture.height)) ** 0.5
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)
