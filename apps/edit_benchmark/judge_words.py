"""The settings of a judge in words, as a line tells them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_SERVED = {
    "limit_field": "tokens limited by {}",
    "picture_format": "pictures as {}",
    "picture_quality": "in quality {}",
    "picture_detail": "in {} detail",
}


def settings_in_words(settings: Mapping[str, Any]) -> list[str]:
    """Each setting of a judge that is set, but its type: `temperature 0.7`."""
    return [
        words
        for name, value in settings.items()
        if name != "type"
        for words in (_of_served(value) if name == "api" else _words(name, value))
    ]


def _of_served(api: Any) -> Iterator[str]:
    """How a judge that is served elsewhere is asked."""
    if not isinstance(api, Mapping):
        yield from _words("api", api)
        return
    for name, value in api.items():
        if name == "send_seed":
            yield "seeds sent" if value else "no seeds sent"
        elif name == "extra":
            yield from _words(name, value)
        elif value is not None:
            yield _SERVED.get(name, f"{name} {{}}").format(value)


def _words(name: str, value: Any) -> Iterator[str]:
    """A setting as `name value`; of an object each member, by its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _words(f"{name}.{key}", inner)
    elif isinstance(value, str):
        yield f"{name} {value}"
    elif value is not None:
        yield f"{name} {json.dumps(value, ensure_ascii=False)}"
