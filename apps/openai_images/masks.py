"""Masks as OpenAI has them: pictures that are transparent where another one is to be changed."""

from pathlib import Path

from apps.openai_images.errors import ApiError, bad_value
from core import masked_editors
from core.errors import InputError
from core.pictures.source_images import inspect_image, read_transparency


def no_mask(model: str) -> ApiError:
    """400: an edit has a mask, and its model takes none."""
    return bad_value("mask", masked_editors.no_mask(model), "unsupported_parameter")


def check_mask(mask: str | Path, picture: str | Path) -> None:
    """Refuse a mask that cannot lie on its picture, or that lets nothing be changed.

    Args:
        mask, picture: files whose headers were checked before.

    Raises:
        ApiError: 400.
    """
    try:
        found, wanted = inspect_image(mask, "mask"), inspect_image(picture)
        if (found.width, found.height) != (wanted.width, wanted.height):
            message = (
                f"mask: it has {found.width} x {found.height} pixels and the first picture "
                f"{wanted.width} x {wanted.height}; it must be of the same size."
            )
            raise bad_value("mask", message, "invalid_image")
        alpha = read_transparency(mask, "mask")
    except InputError:
        raise bad_value("mask", "mask: it is damaged or cut short.", "invalid_image") from None
    if alpha is None or alpha.getextrema()[0] != 0:
        message = (
            "mask: no pixel of it is fully transparent, so nothing may be changed. Send a PNG with "
            "an alpha channel that is 0 where the picture is to be changed."
        )
        raise bad_value("mask", message, "invalid_image")
