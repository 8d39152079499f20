"""Edits within a mask, by the sister pipelines that diffusers has for them."""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
from PIL import Image, ImageOps

from core.errors import InputError
from core.masked_editors import MASKED, no_mask
from core.pictures.source_images import read_image, read_transparency

_WHOLE = 1.0  # `strength`: what the mask shows is made anew, as without one the whole picture is


def masked_sister(pipeline: Any) -> Any:
    """A pipeline of the same parts that takes a mask.

    It has whatever was changed about the first one itself, such as what counts its steps.

    Raises:
        InputError: there is none.
    """
    name = type(pipeline).__name__
    if name not in MASKED:
        raise InputError(f"mask: {no_mask(name)}")
    kind = getattr(diffusers, MASKED[name])
    given = {**pipeline.config, **pipeline.components}
    parameters = inspect.signature(kind.__init__).parameters
    sister = kind(**{key: given[key] for key in parameters if key in given})
    vars(sister).update(vars(pipeline))
    return sister


def read_mask(path: str, sha256: str | None) -> Image.Image:
    """A mask, white where a picture may be changed.

    One with transparent parts, as OpenAI's editors make them, shows with these what may be changed,
    whatever the rest looks like.

    Raises:
        InputError: damaged, too large, or changed since it was checked.
    """
    mask = read_image(path, sha256, "mask")
    alpha = read_transparency(path, "mask")
    return mask.convert("L") if alpha is None else ImageOps.invert(alpha)


def masked_arguments(
    sister: Any,
    images: list[Image.Image],
    mask: Image.Image,
    usual: Mapping[str, inspect.Parameter],
) -> dict[str, Any]:
    """The arguments that a mask adds or changes; those of a task go over them.

    Args:
        usual: parameters of the pipeline whose sister it is, and whose defaults count.
        images: the first one is changed, the others are references.
        mask: white where it may be changed.

    Raises:
        InputError: the pipeline takes no references.
    """
    first, *references = images
    own = inspect.signature(sister.__call__).parameters
    arguments = {
        name: parameter.default
        for name, parameter in usual.items()
        if name in own and own[name].default != parameter.default
    }
    arguments |= {"image": first, "mask_image": mask, "strength": _WHOLE}
    if references:
        if "image_reference" not in own:
            raise InputError(
                f"source_images: with a mask {type(sister).__name__} takes one picture, "
                f"{len(images)} are given."
            )
        arguments["image_reference"] = references if len(references) > 1 else references[0]
    return arguments
