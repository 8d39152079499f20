"""`/v1/batches`: OpenAI's Batch API.

https://platform.openai.com/docs/api-reference/batch
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from apps.openai_images.batch_file import ENDPOINTS
from apps.server.batches.batches import Batches
from apps.server.batches.record import WINDOW, BatchView
from apps.server.context import Caller, MostPriority
from apps.server.document import errors
from apps.server.errors import bad_value
from apps.server.files import LONGEST, SHORTEST, TheFiles
from apps.server.paging import Page, listed
from apps.server.state import kept

MOST_KEYS, MOST_KEY, MOST_VALUE = 16, 64, 512
PURPOSE = "batch"
router = APIRouter(prefix="/v1/batches", tags=["batches"])
Key = Annotated[str, Field(max_length=MOST_KEY)]
Value = Annotated[str, Field(max_length=MOST_VALUE)]


class OutputExpiry(BaseModel):
    """When files of results expire."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=SHORTEST, le=LONGEST, strict=True)


class BatchAsked(BaseModel):
    """What is handed in.

    Attributes:
        input_file_id: of a file with the purpose `batch`.
        endpoint: of all requests in it.
        output_expires_after: by default 30 days.
    """

    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: Annotated[str, Field(json_schema_extra={"enum": [*ENDPOINTS]})]
    completion_window: Annotated[str, Field(json_schema_extra={"enum": [WINDOW]})]
    metadata: Annotated[dict[Key, Value], Field(max_length=MOST_KEYS)] | None = None
    output_expires_after: OutputExpiry | None = None


TheBatches = Annotated[Batches, Depends(kept("batches"))]


@router.post("", responses=errors(429, 507))
async def create_batch(
    request: Request,
    asked: BatchAsked,
    batches: TheBatches,
    files: TheFiles,
    caller: Caller,
    most_priority: MostPriority,
) -> BatchView:
    """Accept a batch; from then on it survives whatever comes."""
    if asked.endpoint not in ENDPOINTS:
        known = " or ".join(f"'{name}'" for name in ENDPOINTS)
        message = f"endpoint: must be {known} (found {asked.endpoint[:100]!r})."
        raise bad_value("endpoint", message)
    if asked.completion_window != WINDOW:
        message = f"completion_window: must be '{WINDOW}'."
        raise bad_value("completion_window", message)
    file = files.find(asked.input_file_id, caller)
    if file is None:
        message = f"input_file_id: there is no file {asked.input_file_id[:100]!r}."
        raise bad_value("input_file_id", message, "file_not_found")
    if file.purpose != PURPOSE:
        message = f"input_file_id: the file's purpose must be '{PURPOSE}', not '{file.purpose}'."
        raise bad_value("input_file_id", message, "invalid_file_purpose")
    expiry = asked.output_expires_after
    seconds = None if expiry is None else expiry.seconds
    address = str(request.base_url).rstrip("/")
    return await batches.create(
        caller, file, asked.endpoint, asked.metadata, seconds, address, most_priority
    )


@router.get("", responses=errors(404))
async def list_batches(
    batches: TheBatches,
    caller: Caller,
    after: Annotated[str | None, Query(description="Id of the last one before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[BatchView]:
    """The caller's batches, newest first."""
    page, has_more = batches.page(caller, after, limit)
    return listed(page, has_more)


@router.get("/{id}", responses=errors(404))
async def read_batch(id: str, batches: TheBatches, caller: Caller) -> BatchView:
    """How a batch stands."""
    return batches.view(id, caller)


@router.post("/{id}/cancel", responses=errors(404, 409, 507))
async def cancel_batch(id: str, batches: TheBatches, caller: Caller) -> BatchView:
    """Try no more of a batch's requests. Those that run are finished, and results are kept."""
    return await batches.cancel(id, caller)
