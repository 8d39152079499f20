"""Files as answers, whole or in part, with refusals in the envelope of all errors."""

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from apps.server.errors import ApiError
from apps.server.safety.answers import refuse


class SentFile(FileResponse):
    """A file; of a `Range` that cannot be, it says so as all routes do, and not in plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: ApiError | None = None

        async def checked(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refusal = _refusal(message)
            if refusal is None:
                await send(message)

        await super().__call__(scope, receive, checked)
        if refusal is not None:
            await refuse(send, refusal)


def _refusal(message: Message) -> ApiError:
    if message["status"] == 400:
        return ApiError(400, "Range: expected bytes=FIRST-LAST.", "invalid_value", "Range")
    told = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
    return ApiError(
        416,
        "Range: the file has no such bytes; Content-Range says how many it has.",
        "range_not_satisfiable",
        "Range",
        headers={"Content-Range": told["content-range"]},
    )
