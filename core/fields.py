"""Types of the fields that tasks and settings have, with what makes a value one."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)

from core.seeds import MAX_SEED, RANDOM, fixed_seed, read_seed

MOST_SHARED = 40  # characters of a text in metadata that others may have, too
MIN_SIDE = 16  # pixels: one latent patch of the families that we know
MAX_SIDE = 8192  # pixels: 64 megapixels, past any model that is served here


@dataclass(frozen=True)
class Shape:
    """What JSON schemas say of a text that a validator of this project checks.

    Attributes:
        pattern: a regular expression, as ECMA-262 has them.
    """

    pattern: str

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(core_schema), "pattern": self.pattern}


def no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


def _plain_text(value: Any) -> Any:
    """Refuse what cannot be written to UTF-8 or to a PNG text chunk."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("contains a NUL character")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("contains half of a surrogate pair, which is not valid text") from None
    return value


def _stripped(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank")
    return value.strip()


def _listed(value: Any) -> Any:
    """One path may stand for a list of one."""
    return [value] if isinstance(value, str) else value


def _php_object(value: Any) -> Any:
    """Read `[]` as an empty object, as PHP writes one."""
    return {} if isinstance(value, list) and not value else value


def _own_json(value: dict[str, Any]) -> dict[str, Any]:
    """A copy: the caller may go on to change what it gave."""
    if not value:
        return {}
    try:
        copied = json.loads(json.dumps(value, allow_nan=False))
        # Thousands of tasks have the same keys, and many the same words.
        return {sys.intern(key): _shared(part) for key, part in copied.items()}
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be plain JSON values, without NaN, objects or loops") from None


def _shared(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) and len(value) <= MOST_SHARED else value


# Limits stand before validators: those after them are checks of their own, which JSON schemas lack.
Text = Annotated[str, BeforeValidator(_plain_text), Shape(r"^[^\u0000]*$")]
Prompt = Annotated[Text, AfterValidator(_stripped), Shape(r"^[^\u0000]*[^\s\u0000][^\u0000]*$")]
Side = Annotated[
    int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=MIN_SIDE), BeforeValidator(no_bool)
]
Area = Annotated[
    int, Field(ge=MIN_SIDE * MIN_SIDE, le=MAX_SIDE * MAX_SIDE), BeforeValidator(no_bool)
]
Steps = Annotated[int, Field(ge=1, le=1000), BeforeValidator(no_bool)]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), BeforeValidator(no_bool)]
Seed = Annotated[
    int,
    PlainValidator(fixed_seed),
    WithJsonSchema({"type": "integer", "minimum": 0, "exclusiveMaximum": MAX_SEED + 1}),
]
SeedOrRandom = Annotated[  # or core.seeds.RANDOM
    int,
    PlainValidator(read_seed),
    WithJsonSchema({"type": "integer", "minimum": RANDOM, "exclusiveMaximum": MAX_SEED + 1}),
]
Metadata = Annotated[dict[str, Any], BeforeValidator(_php_object), AfterValidator(_own_json)]
Quality = Annotated[int, Field(ge=1, le=100), BeforeValidator(no_bool)]
Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False), BeforeValidator(no_bool)]
Source = Annotated[Text, AfterValidator(_stripped)]
MOST_SOURCES = 16  # pictures of one edit
Sources = Annotated[
    tuple[Source, ...], Field(min_length=1, max_length=MOST_SOURCES), BeforeValidator(_listed)
]
MoreSources = Annotated[
    tuple[Source, ...], Field(max_length=MOST_SOURCES), BeforeValidator(_listed)
]
TextFields = Annotated[dict[str, Text], BeforeValidator(_php_object), AfterValidator(_own_json)]
