"""What the OpenAPI document says of bodies that are read and answered by hand."""

from typing import Any

from pydantic import BaseModel

from apps.openai_images.answer import ImagesAnswer
from apps.openai_images.errors import ErrorEnvelope
from apps.openai_images.parameters import EditParameters, GenerationParameters
from apps.server.document import Responses, errors, in_one_piece, never_null, ref, stream
from apps.server.images.answers import DRAWN, EDITED, CompletedImage, PartialImage
from apps.server.images.bodies import FORM, JSON
from core.fields import MOST_SOURCES

_PICTURE = {"type": "string", "format": "binary"}
_PICTURES = {"type": "array", "items": _PICTURE, "maxItems": MOST_SOURCES}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a JSON request's parameters, whole in one piece.

    Each may be null, but for those that are required: that is as good as leaving it out.
    """
    found = in_one_piece(model.model_json_schema())
    for name, value in found["properties"].items():
        if name not in found["required"]:
            found["properties"][name] = _or_null(value)
    return found


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    null = {"type": "null"}
    return schema if null in schema.get("anyOf", ()) else {"anyOf": [schema, null]}


def _edit_form() -> dict[str, Any]:
    schema = in_one_piece(EditParameters.model_json_schema())
    named = schema["properties"].items()
    properties = {n: never_null(v) for n, v in named if n not in ("images", "mask")}
    loras = {"type": "string", "contentMediaType": JSON, "contentSchema": properties["loras"]}
    return {
        **schema,
        "properties": {
            **properties,
            "loras": loras,
            "image": _PICTURE,
            "image[]": _PICTURES,
            "mask": _PICTURE,
        },
        "anyOf": [{"required": ["image"]}, {"required": ["image[]"]}],
    }


def _edit_json() -> dict[str, Any]:
    schema = schema_of(EditParameters)
    return {**schema, "required": [*schema["required"], "images"]}


def _body(**kinds: dict[str, Any]) -> dict[str, Any]:
    content = {{"json": JSON, "form": FORM}[kind]: {"schema": s} for kind, s in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}


def _answers(prefix: str) -> Responses:
    of_pictures = {f"{prefix}.partial_image": PartialImage, f"{prefix}.completed": CompletedImage}
    answer = {
        "description": "The pictures; with `stream` as events, each as soon as it is there.",
        "content": {
            JSON: {"schema": ref(ImagesAnswer)},
            **stream(**of_pictures, error=ErrorEnvelope),
        },
    }
    return {200: answer, **errors(404, 409, 410, 429, 507)}


GENERATION = _body(json=schema_of(GenerationParameters))
EDIT = _body(json=_edit_json(), form=_edit_form())
GENERATION_ANSWERS, EDIT_ANSWERS = _answers(DRAWN), _answers(EDITED)
