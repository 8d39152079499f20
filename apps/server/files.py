"""`/v1/files`: OpenAI's Files API, for pictures that edits name and for batches.

https://platform.openai.com/docs/api-reference/files
"""

import asyncio
import os
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse
from typing_extensions import TypedDict

from apps.server.context import Caller
from apps.server.document import errors
from apps.server.document import files as sent
from apps.server.errors import bad_value, not_found, unknown_parameter
from apps.server.file_store import FileStore, StoredFile
from apps.server.paging import Page, listed
from apps.server.sent_files import SentFile
from apps.server.state import kept

PURPOSES = ("batch", "user_data", "vision")
SHORTEST, LONGEST = 3600, 30 * 24 * 3600  # seconds until a file expires
BATCH_FILE_KEPT = LONGEST  # seconds, if nothing else is said
MOST_LISTED = 10_000
BYTES = "application/octet-stream"
_ANCHOR: dict[str, Any] = {"enum": ["created_at"]}
_SECONDS: dict[str, Any] = {"type": "integer", "minimum": SHORTEST, "maximum": LONGEST}
_TOGETHER = ("expires_after[anchor]", "expires_after[seconds]")
_FORM: dict[str, Any] = {  # beside what the route's parameters say of it
    "content": {
        "multipart/form-data": {
            "schema": {
                "unevaluatedProperties": False,
                "dependentRequired": {_TOGETHER[0]: [_TOGETHER[1]], _TOGETHER[1]: [_TOGETHER[0]]},
            }
        }
    }
}
_FIELDS = ("file", "purpose", *_TOGETHER)


TheFiles = Annotated[FileStore, Depends(kept("files"))]
router = APIRouter(prefix="/v1/files", tags=["files"])


class FileView(TypedDict):
    """A file of a caller; times are Unix times."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class Deleted(TypedDict):
    """A file that is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


@router.post("", responses=errors(429, 507), openapi_extra={"requestBody": _FORM})
async def upload_file(
    request: Request,
    files: TheFiles,
    caller: Caller,
    file: UploadFile,
    purpose: Annotated[str, Form(json_schema_extra={"enum": [*PURPOSES]})],
    anchor: Annotated[
        str | None, Form(alias="expires_after[anchor]", json_schema_extra=_ANCHOR)
    ] = None,
    seconds: Annotated[
        str | None, Form(alias="expires_after[seconds]", json_schema_extra=_SECONDS)
    ] = None,
) -> FileView:
    """Keep a picture that edits name, or the requests of a batch."""
    form = await request.form()
    for name in form:
        if name not in _FIELDS:
            raise unknown_parameter(name[:100])
        if len(form.getlist(name)) > 1:
            raise bad_value(name, f"{name}: is there more than once.")
    if purpose not in PURPOSES:
        known = ", ".join(PURPOSES)
        raise bad_value("purpose", f"purpose: {purpose[:40]!r} is none of {known}.")
    lifetime = _lifetime(purpose, anchor, seconds)
    size = await asyncio.to_thread(file.file.seek, 0, os.SEEK_END)
    await file.seek(0)
    name = file.filename or ""
    kept = await asyncio.to_thread(files.add, caller, name, purpose, file.file, size, lifetime)
    return view(kept)


@router.get("", responses=errors(404))
async def list_files(
    files: TheFiles,
    caller: Caller,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Page[FileView]:
    """The caller's files, newest first."""
    found = await asyncio.to_thread(files.of, caller)
    if order == "desc":
        found.reverse()
    if after is not None:
        place = next((i for i, file in enumerate(found) if file.id == after), None)
        if place is None:
            raise not_found(f"No such File object: {after[:100]}", "file_not_found")
        found = found[place + 1 :]
    if purpose is not None:
        found = [file for file in found if file.purpose == purpose]
    return listed([view(file) for file in found[:limit]], len(found) > limit)


@router.get("/{id}", responses=errors(404))
async def read_file(id: str, files: TheFiles, caller: Caller) -> FileView:
    """What is known of a file."""
    return view(_found(files, id, caller))


@router.get("/{id}/content", response_class=FileResponse, responses={**sent(BYTES), **errors(404)})
async def read_file_content(id: str, files: TheFiles, caller: Caller) -> FileResponse:
    """What was sent, to be saved and never shown: it is whatever a caller chose."""
    file = _found(files, id, caller)
    return SentFile(files.path(file), media_type=BYTES, filename=file.filename)


@router.delete("/{id}", responses=errors(404, 507))
async def delete_file(id: str, files: TheFiles, caller: Caller) -> Deleted:
    """Remove a file."""
    await asyncio.to_thread(files.delete, _found(files, id, caller))
    return {"id": id, "object": "file", "deleted": True}


def view(file: StoredFile) -> FileView:
    """A file as callers see it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "expires_at": file.expires,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _found(files: FileStore, id: str, caller: str) -> StoredFile:
    file = files.find(id, caller)
    if file is None:
        raise not_found(f"No such File object: {id[:100]}", "file_not_found")
    return file


def _lifetime(purpose: str, anchor: str | None, seconds: str | None) -> int | None:
    """Seconds until a file expires; None for never."""
    if anchor is None and seconds is None:
        return BATCH_FILE_KEPT if purpose == "batch" else None
    if anchor != "created_at":
        raise bad_value("expires_after.anchor", "expires_after.anchor: must be created_at.")
    digits = seconds if seconds is not None and seconds.isascii() and seconds.isdigit() else ""
    lifetime = int(digits) if 0 < len(digits) < 9 else 0
    if not SHORTEST <= lifetime <= LONGEST:
        raise bad_value(
            "expires_after.seconds",
            f"expires_after.seconds: must be a number of seconds from {SHORTEST} to {LONGEST}.",
        )
    return lifetime
