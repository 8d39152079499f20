"""Bodies of Images requests: JSON, and multipart forms with pictures."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from apps.server.errors import ApiError, bad_value, unknown_parameter
from apps.server.safety.forms import FORM_LIMITS

JSON, FORM = "application/json", "multipart/form-data"
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_INDEX = re.compile(r"(\[\d*\])?")
_NO_JSON = (
    "We could not parse the JSON body of your request. "
    "The body must be one JSON object, in UTF-8, without NaN."
)


@dataclass(frozen=True)
class Form:
    """A multipart form.

    Attributes:
        values: parameters by name, as texts.
        images: the pictures of `image` and `image[]` in their order: bytes, or a text that refers
            to one.
        mask: the picture of `mask`, if there is one, in the same way.
    """

    values: dict[str, Any]
    images: list[bytes | str]
    mask: bytes | str | None = None


def content_type(request: Request) -> str:
    """The media type of a request's body."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported(request: Request, *supported: str) -> ApiError:
    """400: the body is of another type."""
    kinds = " or ".join(f"'{kind}'" for kind in supported)
    given = request.headers.get("content-type")
    said = f"this one says '{given}'" if given else "this one says nothing"
    message = f"Unsupported content type: send {kinds} in the header Content-Type; {said}."
    return ApiError(400, message, "unsupported_content_type")


async def json_body(request: Request) -> dict[str, Any]:
    """The object in a JSON body."""
    raw = await request.body()
    try:
        found = json.loads(raw.decode("utf-8"), parse_constant=_refused)
    except (ValueError, RecursionError):
        raise ApiError(400, _NO_JSON, "invalid_json") from None
    if not isinstance(found, dict):
        raise ApiError(400, _NO_JSON, "invalid_json")
    return found


def _refused(constant: str) -> float:
    raise ValueError(constant)


async def form_body(request: Request) -> Form:
    """The parameters and pictures of a multipart form; other files in it are refused."""
    try:
        async with request.form(**FORM_LIMITS) as form:
            return await _read(form)
    except HTTPException as error:
        message = f"We could not parse the form of your request: {error.detail}"
        raise ApiError(400, message, "invalid_form") from None


async def _read(form: FormData) -> Form:
    values: dict[str, Any] = {}
    images: list[bytes | str] = []
    mask: bytes | str | None = None
    lists: dict[tuple[str, str], list[str]] = {}
    for full_name, value in form.multi_items():
        found = _NAME.fullmatch(full_name)
        if found is None:
            raise unknown_parameter(full_name)
        name, inner = found.groups()
        if name == "image" and _INDEX.fullmatch(inner):
            images.append(await _picture(value))
        elif name == "images":
            message = "In a form pictures are called 'image', or 'image[]' if there are several."
            raise bad_value(name, message, "unknown_parameter")
        elif full_name == "mask":
            if mask is not None:
                raise _twice(name)
            mask = await _picture(value)
        elif isinstance(value, UploadFile):
            raise unknown_parameter(name)
        elif name == "loras" and inner in ("[]", "[][name]", "[][strength]"):
            lists.setdefault((name, inner[2:]), []).append(value)
        elif inner:
            raise unknown_parameter(name)
        elif name in values:
            raise _twice(name)
        else:
            values[name] = value
    _add_loras(values, lists)
    return Form(values, images, mask)


async def _picture(value: UploadFile | str) -> bytes | str:
    return await value.read() if isinstance(value, UploadFile) else value


def _twice(name: str) -> ApiError:
    return bad_value(name, f"'{name}' is given twice.", "duplicate_parameter")


def _add_loras(values: dict[str, Any], lists: Mapping[tuple[str, str], list[str]]) -> None:
    """LoRAs of a form: `loras` with JSON, `loras[]` with names, or with names and strengths."""
    if lists and "loras" in values:
        raise _twice("loras")
    if "loras" in values:
        try:
            values["loras"] = json.loads(values["loras"], parse_constant=_refused)
        except (ValueError, RecursionError):
            message = 'In a form \'loras\' is a JSON array, such as [{"name": "snow"}].'
            raise bad_value("loras", message) from None
        return
    if not lists:
        return
    plain, names, strengths = (
        lists.get(("loras", inner), []) for inner in ("", "[name]", "[strength]")
    )
    if (strengths and len(strengths) != len(names)) or (plain and names):
        message = "In a form each LoRA needs a strength if one has it; or send 'loras' as JSON."
        raise bad_value("loras", message)
    if strengths:
        both = zip(names, strengths, strict=True)
        values["loras"] = [{"name": name, "strength": strength} for name, strength in both]
    else:
        values["loras"] = [*plain, *names]
