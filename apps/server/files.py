"""`/v1/files`: OpenAI's Files API, for pictures that edits name and for batches.

https://platform.openai.com/docs/api-reference/files
"""

import asyncio
import os
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse

from apps.server.context import Caller
from apps.server.errors import bad_value, not_found, unknown_parameter
from apps.server.file_store import FileStore, StoredFile
from apps.server.paging import listed
from apps.server.state import kept

PURPOSES = ("batch", "user_data", "vision")
SHORTEST, LONGEST = 3600, 30 * 24 * 3600  # seconds until a file expires
OF_BATCHES = LONGEST  # if nothing else is said
MOST_LISTED = 10_000
_FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")


TheFiles = Annotated[FileStore, Depends(kept("files"))]
router = APIRouter(prefix="/v1/files")


@router.post("")
async def upload(
    request: Request,
    files: TheFiles,
    caller: Caller,
    file: UploadFile,
    purpose: Annotated[str, Form()],
    anchor: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[str | None, Form(alias="expires_after[seconds]")] = None,
) -> dict[str, Any]:
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


@router.get("")
async def listing(
    files: TheFiles,
    caller: Caller,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> dict[str, Any]:
    found = await asyncio.to_thread(files.of, caller)
    if order == "desc":
        found.reverse()
    if after is not None:
        place = next((i for i, file in enumerate(found) if file.id == after), None)
        if place is None:
            raise bad_value("after", f"after: there is no file {after[:100]!r}.")
        found = found[place + 1 :]
    if purpose is not None:
        found = [file for file in found if file.purpose == purpose]
    return listed([view(file) for file in found[:limit]], len(found) > limit)


@router.get("/{id}")
async def read(id: str, files: TheFiles, caller: Caller) -> dict[str, Any]:
    return view(_found(files, id, caller))


@router.get("/{id}/content")
async def content(id: str, files: TheFiles, caller: Caller) -> FileResponse:
    """What was sent, to be saved and never shown: it is whatever a caller chose."""
    file = _found(files, id, caller)
    return FileResponse(
        files.path(file), media_type="application/octet-stream", filename=file.filename
    )


@router.delete("/{id}")
async def delete(id: str, files: TheFiles, caller: Caller) -> dict[str, Any]:
    await asyncio.to_thread(files.delete, _found(files, id, caller))
    return {"id": id, "object": "file", "deleted": True}


def view(file: StoredFile) -> dict[str, Any]:
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
        return OF_BATCHES if purpose == "batch" else None
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
