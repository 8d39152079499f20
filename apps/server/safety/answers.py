"""Refusals that are sent before there is a request for a route."""

import json

from starlette.types import Send

from apps.server.errors import ApiError

JSON_TYPE = b"application/json"


def body_of(error: ApiError) -> bytes:
    """The envelope of an error, as it is sent."""
    return json.dumps(error.envelope).encode()


def headers_of(error: ApiError, body: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that reports an error."""
    own = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    return [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body)), *own]


async def refuse(send: Send, error: ApiError) -> None:
    """Answer with an error."""
    body = body_of(error)
    headers = headers_of(error, body)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
