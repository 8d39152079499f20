"""`/pictures/...`: the addresses of `response_format: url`."""

import asyncio
import time

from fastapi import APIRouter, Request, Response

from apps.openai_images.encoding import MEDIA_TYPES, encoded
from apps.server.context import TheService
from apps.server.document import content, errors
from apps.server.errors import ApiError, not_found
from apps.server.images.links import PREFIX, Links, NoLink
from apps.server.images.places import picture_file
from apps.server.public_results import public_result

router = APIRouter(tags=["images"])


@router.get(
    f"{PREFIX}{{name}}",
    responses={200: content(*MEDIA_TYPES.values()), **errors(404, 410)},
    response_class=Response,
)
async def read_picture(name: str, request: Request, service: TheService) -> Response:
    """A picture by its address, which needs no key: nobody can guess it, and it expires."""
    links: Links = request.app.state.links
    try:
        link = links.read(name)
    except NoLink:
        raise _none() from None
    if link.expired:
        raise ApiError(410, "The address of this picture has expired.", "url_expired")
    file = picture_file(service.folder, link.job, link.position)
    try:
        picture = await asyncio.to_thread(
            encoded, file, link.format, link.compression, public_result
        )
    except FileNotFoundError:
        raise _none() from None
    headers = {
        "Cache-Control": f"private, immutable, max-age={max(0, int(link.ends - time.time()))}",
        "Content-Disposition": f'inline; filename="{link.job}-{link.position}.{link.format}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(picture, media_type=MEDIA_TYPES[link.format], headers=headers)


def _none() -> ApiError:
    return not_found("There is no such picture.", "picture_not_found")
