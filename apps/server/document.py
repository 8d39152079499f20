"""The OpenAPI document at `/openapi.json`: what routes say of themselves, and what holds for all.

Bodies are described by the types that routes take and give. What the guard in front of all routes
may answer is added here, to each of them.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from apps.openai_images.errors import ErrorEnvelope
from apps.server.safety.guard import needs_key
from apps.server.safety.keys import ApiKeys

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
SCHEMAS = "#/components/schemas/"
KEY_SCHEME = "apiKey"
FORM_PREFIX = "Body_"  # of the names that FastAPI gives to schemas of forms
STATUSES = {
    400: "A parameter, a header or the body cannot be used: `error.param` and `error.code` say it.",
    401: "The daemon has API keys, and the request has none of them.",
    403: "The request is for another host, comes from another site's page, or its API key may not "
    "do this.",
    404: "There is none, or none of this caller's.",
    408: "The request did not arrive in time.",
    409: "It does not fit how things stand: `error.code` says why.",
    410: "It was there, and is gone.",
    413: "The body is too large.",
    415: "The body is packed, or its charset is not UTF-8.",
    416: "The file has no such range.",
    429: "Too much waits or is stored; after `Retry-After` seconds, if it says so, there is room.",
    431: "The headers are too large.",
    500: "It could not be done, or the daemon has a defect.",
    503: "The daemon stops, has too much to do, or has no such model.",
    507: "The disk takes nothing more.",
}
OF_ALL = (400, 401, 403, 408, 413, 415, 431, 500, 503)
"""What any request may be answered before a route sees it."""
TAGS = {
    "images": "OpenAI's Images API.",
    "models": "OpenAI's Models API.",
    "files": "OpenAI's Files API: pictures that edits name, and batches.",
    "batches": "OpenAI's Batch API: a file of requests.",
    "jobs": "Tasks of any kind as one job, their results, and what happens to them.",
    "loras": "LoRAs that tasks may name.",
    "operations": "Health, metrics and workers.",
}
Responses = dict[int | str, dict[str, Any]]
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, which `python serve.py keys add NAME` makes.",
}
_components: dict[str, Any] = {}


def ref(model: type) -> dict[str, str]:
    """A reference to the schema of a type, which the document will have."""
    _components[model.__name__] = model
    return {"$ref": SCHEMAS + model.__name__}


def errors(*statuses: int) -> Responses:
    """Answers of a route that report errors, for its `responses`."""
    schema = ref(ErrorEnvelope)
    return {
        status: {"description": STATUSES[status], "content": {JSON: {"schema": schema}}}
        for status in statuses
    }


def content(*media_types: str) -> dict[str, Any]:
    """What an answer holds that no type describes: a text, bytes, or a JSON file."""
    return {
        "content": {
            media_type: {"schema": {} if media_type == JSON else {"type": "string"}}
            for media_type in media_types
        }
    }


def files(*media_types: str) -> Responses:
    """Answers of a route that sends files, whole or in part."""
    return {
        200: content(*media_types),
        206: {"description": "The range that was asked for.", **content(*media_types)},
        **errors(416),
    }


def stream(**events: type) -> dict[str, Any]:
    """Server-sent events by name, each with the type of its data."""
    each = [
        {
            "type": "object",
            "properties": {
                "event": {"const": name},
                "data": {
                    "type": "string",
                    "contentMediaType": JSON,
                    "contentSchema": ref(kind),
                },
                "id": {"type": "string"},
                "retry": {"type": "integer", "minimum": 0},
            },
            "required": ["event", "data"],
        }
        for name, kind in events.items()
    ]
    return {EVENT_STREAM: {"itemSchema": {"oneOf": each}}}


def in_one_piece(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema with its definitions in the places that refer to them."""
    definitions = schema.get("$defs", {})

    def whole(part: Any) -> Any:
        if isinstance(part, list):
            return [whole(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return whole(definitions[part["$ref"].rpartition("/")[2]])
        return {name: whole(value) for name, value in part.items() if name != "$defs"}

    found: dict[str, Any] = whole(schema)
    return found


def name_of_route(route: APIRoute) -> str:
    """The id of an operation is the name of its function."""
    return route.name


def describe(app: FastAPI, keys: ApiKeys | None) -> None:
    """Have the application's document say what holds for all routes.

    Args:
        keys: API keys, where there may be any; the document says whether one is needed now.
    """
    plain = app.openapi
    made: dict[bool, dict[str, Any]] = {}

    def document() -> dict[str, Any]:
        needed = keys is not None and keys.needed
        if needed not in made:
            app.openapi_schema = None
            made[needed] = _completed(plain(), needed)
        return made[needed]

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: dict[str, Any], key_needed: bool) -> dict[str, Any]:
    """Add errors and security to all operations, and the schemas that they refer to."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = never_null(parameter["schema"])
            answers = operation["responses"]
            answers.pop("422", None)  # a request that does not fit its schema is a 400 here
            for status, answer in errors(*OF_ALL).items():
                answers.setdefault(str(status), answer)
            operation["responses"] = dict(sorted(answers.items()))
            if needs_key(path):
                operation["security"] = [{KEY_SCHEME: []}, *([] if key_needed else [{}])]
            else:
                operation["security"] = []
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, form in schemas.items():
        if name.startswith(FORM_PREFIX):
            form["properties"] = {n: never_null(s) for n, s in form["properties"].items()}
    for name, schema in _schemas_of(_components.items()):
        schemas.setdefault(name, schema)
    components["securitySchemes"] = {KEY_SCHEME: _KEY}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return document


def never_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a part of an address, a header or a form: left out, but never null."""
    others = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(others) != 1:
        return schema
    return {**others[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


def _schemas_of(models: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    template = SCHEMAS + "{model}"
    for name, model in models:
        schema = TypeAdapter(model).json_schema(mode="serialization", ref_template=template)
        yield from schema.pop("$defs", {}).items()
        yield name, schema
