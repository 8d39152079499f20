"""What the OpenAPI document says of bodies that are read by hand."""

from typing import Any

from pydantic import BaseModel

from apps.openai_images.parameters import EditParameters, GenerationParameters
from apps.server.images.bodies import FORM, JSON
from core.fields import MOST_SOURCES

_PICTURE = {"type": "string", "format": "binary"}
_PICTURES = {"type": "array", "items": _PICTURE, "minItems": 1, "maxItems": MOST_SOURCES}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, whole in one piece."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(part: Any) -> Any:
        if isinstance(part, list):
            return [whole(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return whole(definitions[part["$ref"].rpartition("/")[2]])
        return {name: whole(value) for name, value in part.items()}

    found: dict[str, Any] = whole(schema)
    return found


def _edit_form() -> dict[str, Any]:
    schema = schema_of(EditParameters)
    properties = {name: v for name, v in schema["properties"].items() if name != "images"}
    return {**schema, "properties": {**properties, "image": _PICTURE, "image[]": _PICTURES}}


def _body(**kinds: dict[str, Any]) -> dict[str, Any]:
    content = {{"json": JSON, "form": FORM}[kind]: {"schema": s} for kind, s in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}


GENERATION = _body(json=schema_of(GenerationParameters))
EDIT = _body(json=schema_of(EditParameters), form=_edit_form())
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A parameter cannot be used; `error.param` and `error.code` say which."},
    404: {"description": "The model is not served."},
    409: {"description": "The Idempotency-Key came before with another request."},
    410: {"description": "The pictures were cancelled, or removed."},
    429: {"description": "Too much waits."},
    500: {"description": "The picture could not be drawn."},
    503: {"description": "The server stops, or has no such model."},
}
