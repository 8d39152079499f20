"""`/v1/images/generations` and `/v1/images/edits`.

A request is a job like any other: accepted by the journal, drawn in the order of its priority, and
kept as long as jobs are. Its client waits for the end. One that leaves before wants no more of it,
so what has not begun by then is cancelled; unless the request has an Idempotency-Key, by which its
client may come back for the same pictures.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from apps.openai_images.edits import EditAsked, check_pictures, edit_in_json
from apps.openai_images.masks import no_mask
from apps.openai_images.parameters import EditParameters, GenerationParameters, ImageParameters
from apps.openai_images.refusals import checked
from apps.openai_images.tasks import check_together, steps_of, tasks_for
from apps.server.context import Caller, MostPriority, TheInbox, TheLoras, TheService
from apps.server.errors import CLIENT_GONE, ApiError
from apps.server.idempotency import REPLAYED, IdempotencyKey, RequestKey
from apps.server.images import documents
from apps.server.images.answers import Answer
from apps.server.images.bodies import FORM, JSON, content_type, form_body, json_body, unsupported
from apps.server.images.client import Gone, unless_gone
from apps.server.images.links import Links
from apps.server.images.places import places_of
from apps.server.images.stream import PictureStream, events
from apps.server.images.waiting import all_drawn, pictures, wanted_no_more
from apps.server.inbox import Inbox
from apps.server.loras import Loras
from apps.server.models import Models, TheModels
from apps.server.priorities import allowed
from apps.server.records import PREVIEWS, NewJob, StoredJob, new_id
from apps.server.service import Service
from apps.server.task_requests import lora_paths
from core.worker_spec import Role

router = APIRouter(prefix="/v1/images", tags=["images"])
SOURCE = "images"


@dataclass(frozen=True)
class Read:
    """Paths of the pictures that an edit reads.

    Attributes:
        sources: are to be changed.
        mask: of the first one.
    """

    sources: Sequence[str] = ()
    mask: str | None = None


class Drawing:
    """What a request needs of the daemon until its pictures are there."""

    def __init__(
        self,
        request: Request,
        service: Service,
        models: Models,
        inbox: Inbox,
        loras: Loras,
        caller: str,
        most_priority: int,
        idempotency_key: str | None,
    ) -> None:
        self.request = request
        self.service = service
        self.models = models
        self.inbox = inbox
        self.loras = loras
        self.caller = caller
        self.priority = allowed(most_priority)
        self.idempotency_key = idempotency_key
        self.started = time.monotonic()
        self.links: Links = request.app.state.links

    async def check(self, asked: ImageParameters, role: Role) -> str:
        """Whether the request can be served at all; returns the name of its model.

        Raises:
            ApiError: 400, 404 or 503.
        """
        check_together(asked, self.service.rules.images)
        return await self.models.asked_for(asked.model, role)

    async def answer(
        self,
        asked: ImageParameters,
        prepare: Callable[[], Awaitable[Read]],
        beside: Callable[[], Any] = tuple,
    ) -> Response:
        """Have the pictures drawn, and hand them out; of a request that came before, the same.

        Args:
            prepare: checks that a new request can be served, and gives the pictures that it reads.
            beside: gives what is asked for beside the parameters, as JSON has it.

        Raises:
            ApiError: they cannot be drawn.
        """

        def everything() -> Any:
            parameters = asked.model_dump(mode="json", exclude={"images", "mask"})
            return [SOURCE, type(asked).__name__, parameters, beside()]

        key = RequestKey()
        if self.idempotency_key is not None:  # bodies may be large
            key = await asyncio.to_thread(RequestKey.of, self.idempotency_key, everything)
        with ExitStack() as waiting:
            stored, is_new = await self.service.known(self.caller, key), False
            if stored is None:
                job = await self._job(asked, await prepare(), key)
                waiting.enter_context(self.service.wanted.hold(job.id))  # before it can end
                stored, is_new = await self.service.submit(job)
            if not is_new:
                waiting.enter_context(self.service.wanted.hold(stored.id))
            headers = {} if is_new else dict(REPLAYED)
            try:
                return await self._hand_out(asked, stored, key, headers, waiting)
            except ApiError as error:
                error.headers.update(headers)
                raise

    async def _hand_out(
        self,
        asked: ImageParameters,
        stored: StoredJob,
        key: RequestKey,
        headers: dict[str, str],
        waiting: ExitStack,
    ) -> Response:
        """Wait for the pictures of a job.

        Args:
            waiting: ends when its results are not waited for any more; a stream takes it over.
        """
        live = await self.service.followed(stored)
        address = str(self.request.base_url).rstrip("/")
        answer = Answer(asked, stored.id, self.service.folder, self.links, address)

        async def leave() -> None:
            if wanted_no_more(live, comes_back=key.key is not None):
                await self.service.cancel(stored)

        if asked.stream:
            until_sent = waiting.pop_all()

            async def after() -> None:
                with until_sent:
                    await leave()

            return PictureStream(events(pictures(self.service, live), answer), after, headers)
        try:
            await unless_gone(self.request, all_drawn(self.service, live))
        except Gone:
            return Response(status_code=CLIENT_GONE)
        finally:
            await leave()
        created = int(live.stored.ended or time.time())
        made = partial(answer.body, live.results, created)
        body = made() if answer.is_quick else await asyncio.to_thread(made)
        headers["openai-processing-ms"] = str(round(1000 * (time.monotonic() - self.started)))
        return Response(body, media_type=JSON, headers=headers)

    async def _job(self, asked: ImageParameters, read: Read, key: RequestKey) -> NewJob:
        id = new_id("job")
        kind: Role = "edit" if read.sources else "generate"
        loras = await lora_paths(self.loras, (lora.name for lora in asked.loras), kind)
        steps = steps_of(asked, self.service.rules.images)
        tasks = tasks_for(asked, places_of(id), steps, loras, read.sources, mask=read.mask)
        metadata: dict[str, str | int] = {}
        if asked.identifier:
            metadata["user"] = asked.identifier
        if asked.partial_images:
            metadata[PREVIEWS] = asked.partial_images
        return NewJob(self.caller, tasks, self.priority, SOURCE, key, metadata, id=id)


async def _drawing(
    request: Request,
    service: TheService,
    models: TheModels,
    inbox: TheInbox,
    loras: TheLoras,
    caller: Caller,
    most_priority: MostPriority,
    idempotency_key: IdempotencyKey = None,
) -> Drawing:
    return Drawing(request, service, models, inbox, loras, caller, most_priority, idempotency_key)


TheDrawing = Annotated[Drawing, Depends(_drawing)]


@router.post(
    "/generations",
    response_class=Response,
    responses=documents.GENERATION_ANSWERS,
    openapi_extra=documents.GENERATION,
)
async def create_images(request: Request, drawing: TheDrawing) -> Response:
    """Draw pictures from a prompt."""
    if content_type(request) != JSON:
        raise unsupported(request, JSON)
    asked = checked(GenerationParameters, await json_body(request))

    async def prepare() -> Read:
        await drawing.check(asked, "generate")
        return Read()

    return await drawing.answer(asked, prepare)


@router.post(
    "/edits",
    response_class=Response,
    responses=documents.EDIT_ANSWERS,
    openapi_extra=documents.EDIT,
)
async def edit_images(request: Request, drawing: TheDrawing) -> Response:
    """Change pictures as a prompt says."""
    edit = await _edit_asked_for(request)
    param = "images" if content_type(request) == JSON else "image"
    check_pictures(edit, param)

    async def prepare() -> Read:
        model = await drawing.check(edit.asked, "edit")
        if edit.mask is not None and not await drawing.models.take_masks():
            raise no_mask(model)
        inbox, caller = drawing.inbox, drawing.caller
        sources = [await inbox.given(caller, each, param) for each in edit.pictures]
        if edit.mask is None:
            return Read(sources)
        return Read(sources, await inbox.mask(caller, edit.mask, sources[0]))

    return await drawing.answer(edit.asked, prepare, lambda: _compared(edit))


def _compared(edit: EditAsked) -> Any:
    """What makes an edit another one than the edit before it, beside its parameters."""
    pictures = [_hashed(picture) for picture in edit.pictures]
    return [False if edit.mask is None else _hashed(edit.mask), pictures]


def _hashed(picture: bytes | str) -> tuple[str, str]:
    if isinstance(picture, bytes):
        return "bytes", sha256(picture).hexdigest()
    return "reference", sha256(picture.encode()).hexdigest()


async def _edit_asked_for(request: Request) -> EditAsked:
    """An edit as JSON or as a form."""
    kind = content_type(request)
    if kind == JSON:
        return edit_in_json(await json_body(request))
    if kind == FORM:
        form = await form_body(request)
        asked = checked(EditParameters, form.values, texts=True)
        return EditAsked(asked, form.images, form.mask)
    raise unsupported(request, FORM, JSON)
