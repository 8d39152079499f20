"""Edits whose pictures come in JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.openai_images.errors import ApiError, bad_value
from apps.openai_images.parameters import EditParameters
from apps.openai_images.refusals import checked, missing
from core.fields import MOST_SOURCES


@dataclass(frozen=True)
class EditAsked:
    """An edit as a request asks for it.

    Attributes:
        pictures: each as bytes, or as a text that refers to one.
        mask: the same; None where there is none.
    """

    asked: EditParameters
    pictures: Sequence[bytes | str]
    mask: bytes | str | None


def edit_in_json(body: Mapping[str, Any]) -> EditAsked:
    """Read an edit from the body of a JSON request.

    Raises:
        ApiError: 400, about the first thing that is wrong.
    """
    if "image" in body:
        message = "Unknown parameter: 'image'. In JSON pictures come as 'images'."
        raise ApiError(400, message, "unknown_parameter", "image")
    asked = checked(EditParameters, body)
    pictures = [picture.text for picture in asked.images or ()]
    return EditAsked(asked, pictures, None if asked.mask is None else asked.mask.text)


def check_pictures(edit: EditAsked, param: str) -> None:
    """Refuse an edit of nothing, or of too much.

    Args:
        param: the field in which pictures come.

    Raises:
        ApiError: 400.
    """
    if not edit.pictures:
        raise missing(param)
    if len(edit.pictures) > MOST_SOURCES:
        message = f"Invalid '{param}': expected at most {MOST_SOURCES} pictures."
        raise bad_value(param, message, "array_above_max_length")
