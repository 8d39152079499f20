"""`/` and `/static/`: the page's files, as they lie in `static/` here and in `apps/page_parts/`.

No build step makes them.

They hold nothing of anybody, so that no key is needed for them; what they show they ask of the
public routes, as any other client does.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from apps.page_parts import FOLDER as SHARED
from apps.server.errors import not_found

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Scripts and styles of this server's files alone, none within the page; pictures also as the script
# fetched them with a key, or as somebody is about to send them (blob:). Trusted Types have the
# browser refuse text as HTML, wherever it may come from.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class PageFile:
    """One file, as it is sent."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """All files of the page, by name: some 60 kB."""
    return {
        file.name: PageFile(
            content := file.read_bytes(),
            MEDIA_TYPES[file.suffix],
            f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        )
        for folder in (SHARED, FOLDER)
        for file in folder.iterdir()
        if file.suffix in MEDIA_TYPES
    }


@router.get("/")
async def index(request: Request) -> Response:
    return _sent(INDEX, request)


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    return _sent("icon.svg", request)


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    return _sent(name, request)


def _sent(name: str, request: Request) -> Response:
    file = page_files().get(name)
    if file is None:
        raise not_found(f"The page has no file '{name[:100]}'.", "file_not_found")
    headers = {
        "ETag": file.etag,
        # Asked for each time, and sent only if it has changed: a new version is whole at once.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    known = request.headers.get("if-none-match", "")
    if file.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
