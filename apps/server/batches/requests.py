"""From the requests of a batch to tasks: what needs to be looked up for each is looked up here."""

from typing import Any

from apps.openai_images.batch_file import BatchRequest
from apps.openai_images.masks import no_mask
from apps.openai_images.tasks import steps_of, tasks_for
from apps.server.images.places import places_of
from apps.server.inbox import Inbox
from apps.server.loras import Loras
from apps.server.models import Models
from apps.server.service import Service
from apps.server.task_requests import lora_paths


class RequestTasks:
    """Makes tasks of requests, as the routes of the Images API do."""

    def __init__(self, service: Service, models: Models, inbox: Inbox, loras: Loras) -> None:
        self._service = service
        self._models = models
        self._inbox = inbox
        self._loras = loras

    async def of(
        self, request: BatchRequest, caller: str, job: str, first: int
    ) -> tuple[dict[str, Any], ...]:
        """The tasks of a request.

        Args:
            job: the id of the job that they are to be in.
            first: the position of the first of them there.

        Raises:
            ApiError: the request cannot be served.
        """
        asked = request.asked
        model = await self._models.asked_for(asked.model, request.role)
        if request.mask is not None and not await self._models.take_masks():
            raise no_mask(model)
        self._service.check_size(asked.n)
        sources = [await self._inbox.resolve(caller, text, "images") for text in request.pictures]
        mask = None
        if request.mask is not None:
            mask = await self._inbox.mask(caller, request.mask, sources[0])
        names = (lora.name for lora in asked.loras)
        loras = await lora_paths(self._loras, names, request.role)
        steps = steps_of(asked, self._service.rules.images)
        return tasks_for(asked, places_of(job, first), steps, loras, sources, mask=mask)
