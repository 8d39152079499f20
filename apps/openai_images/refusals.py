"""Parameters that cannot be: the first thing wrong with a request, in OpenAI's words and codes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from apps.openai_images.errors import ApiError, bad_value, unknown_parameter
from apps.openai_images.parameters import ImageParameters

P = TypeVar("P", bound=ImageParameters)
_TYPES = {
    "int": "an integer",
    "float": "a number",
    "string": "a string",
    "bool": "a boolean",
    "list": "an array",
    "model": "an object",
    "dict": "an object",
}
_JSON_TYPES: dict[type, str] = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_BOUNDS = {
    "greater_than_equal": ("below_min_value", ">=", "ge"),
    "less_than_equal": ("above_max_value", "<=", "le"),
}
_LENGTHS = {
    "string_too_long": ("at most", "max_length"),
    "string_too_short": ("at least", "min_length"),
    "too_long": ("at most", "max_length"),
    "too_short": ("at least", "min_length"),
}


def checked(kind: type[P], given: Mapping[str, Any], texts: bool = False) -> P:
    """The parameters of a request, each of the right type and within its limits.

    Args:
        texts: values are texts, as in a form, and stand for numbers and truth values.

    Raises:
        ApiError: 400, about the first thing that is wrong.
    """
    known = {*kind.model_fields, *kind.meaningless}
    said = {name: v for name, v in given.items() if v is not None or name not in known}
    for name in said:
        if name not in kind.model_fields:
            raise unknown_parameter(name)
    if "prompt" not in said:
        raise missing("prompt")
    try:
        return kind.model_validate(said, strict=not texts)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False)[0]) from None


def missing(param: str) -> ApiError:
    """400: a parameter without which there is nothing to do."""
    message = f"Missing required parameter: '{param}'."
    return bad_value(param, message, "missing_required_parameter")


def refusal(found: Any) -> ApiError:
    """400: what pydantic found, one item of its `errors()`."""
    kind, value = str(found["type"]), found["input"]
    param, context = _place(found["loc"]), found.get("ctx", {})
    if kind == "missing":
        return missing(param)
    if kind == "extra_forbidden":
        return unknown_parameter(param)
    if kind == "literal_error":
        allowed = f"Supported values are: {context['expected']}."
        return bad_value(param, f"Invalid value for '{param}': {_shown(value)}. {allowed}")
    if kind in _BOUNDS:
        code, sign, bound = _BOUNDS[kind]
        number = "integer" if _is_whole(value) else "decimal"
        message = (
            f"Invalid '{param}': expected a value {sign} {context[bound]}, "
            f"but got {_shown(value)} instead."
        )
        return bad_value(param, message, f"{number}_{code}")
    if kind in _LENGTHS:
        bound, limit = _LENGTHS[kind]
        what, unit = ("string", "characters") if isinstance(value, str) else ("array", "items")
        message = (
            f"Invalid '{param}': expected {bound} {context[limit]} {unit}, "
            f"but got {len(value)} instead."
        )
        beyond = "above_max" if limit == "max_length" else "below_min"
        return bad_value(param, message, f"{what}_{beyond}_length")
    expected = _TYPES.get(kind.partition("_")[0])
    if expected is not None and kind.endswith(("_type", "_parsing", "_from_float")):
        got = _JSON_TYPES.get(type(value), "another type")
        message = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
        return bad_value(param, message, "invalid_type")
    reason = str(context["error"]) if "error" in context else _lower(found["msg"])
    return bad_value(param, f"Invalid value for '{param}': {reason}.")


def _place(path: Sequence[str | int]) -> str:
    """Where it is, as `loras[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _is_whole(value: Any) -> bool:
    """Whether it is an integer, or a text of one, as forms and addresses have them."""
    return isinstance(value, int) or (isinstance(value, str) and value.strip("+-").isdecimal())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
