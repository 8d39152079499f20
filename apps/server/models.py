"""`/v1/models`: what this daemon draws, edits and scores with."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from typing_extensions import TypedDict

from apps.openai_images.errors import ApiError
from apps.openai_images.models import AUTO, check_model, name_of, no_model, unknown_model
from apps.server.document import errors
from apps.server.paging import Listing
from apps.server.state import kept
from core import MultiGPUImageGenerator
from core.errors import MultiGPUError
from core.worker_spec import Role

router = APIRouter(prefix="/v1/models", tags=["models"])
ROLES: tuple[Role, ...] = ("generate", "edit", "score")
LOCAL = "local"  # the owner of models that are no hub's


class ModelView(TypedDict):
    """A model that is served.

    Attributes:
        created: Unix time of the daemon's start.
        kinds: of the tasks that it is for.
        takes_masks: it edits within masks.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kinds: list[Role]
    takes_masks: bool


@dataclass(frozen=True)
class Served:
    """A model as clients call it, the kinds of task that it is for, and whether it takes masks."""

    id: str
    roles: tuple[Role, ...]
    takes_masks: bool


class Models:
    """The models of a generator, by the names that clients use.

    A model is chosen when somebody asks for it first; one that cannot be used is not listed.
    """

    def __init__(self, generator: MultiGPUImageGenerator) -> None:
        self._generator = generator
        self._known: dict[Role, str] = {}
        self._take_masks: bool | None = None
        self.since = int(time.time())

    async def serving(self, role: Role) -> str:
        """The name of the model for a kind of task.

        Raises:
            ApiError: 503: it cannot be used as it is set.
        """
        if role not in self._known:
            try:
                model = await asyncio.to_thread(self._generator.model_of, role)
            except MultiGPUError as error:
                raise no_model(role, str(error)) from None
            self._known[role] = name_of(model)
        return self._known[role]

    async def asked_for(self, name: str, role: Role) -> str:
        """The name of the model that a request means.

        Args:
            name: as the request says it; `auto` for whichever is served.

        Raises:
            ApiError: 404 for a model that is not served, 400 for one of another kind of task.
        """
        serving = await self.serving(role)
        if name not in (AUTO, serving):
            check_model(name, role, serving, {model.id for model in await self.all()})
        return serving

    async def take_masks(self) -> bool:
        """Whether the model that edits, and can be used, takes masks."""
        if self._take_masks is None:
            self._take_masks = await asyncio.to_thread(self._generator.takes_masks)
        return self._take_masks

    async def all(self) -> list[Served]:
        """Every model that can be used."""
        roles: dict[str, list[Role]] = {}
        for role in ROLES:
            try:
                roles.setdefault(await self.serving(role), []).append(role)
            except ApiError:
                continue
        return [
            Served(name, tuple(its), "edit" in its and await self.take_masks())
            for name, its in roles.items()
        ]


TheModels = Annotated[Models, Depends(kept("models"))]


@router.get("")
async def list_models(models: TheModels) -> Listing[ModelView]:
    """All models that are served."""
    data = [_view(model, models.since) for model in await models.all()]
    return {"object": "list", "data": data}


@router.get("/{id:path}", responses=errors(404))
async def read_model(id: str, models: TheModels) -> ModelView:
    """One model. Ids of Hugging Face have a slash, which may stand as it is or as %2F."""
    for model in await models.all():
        if model.id == id:
            return _view(model, models.since)
    raise unknown_model(id)


def _view(model: Served, since: int) -> ModelView:
    owner, slash, _ = model.id.partition("/")
    return {
        "id": model.id,
        "object": "model",
        "created": since,
        "owned_by": owner if slash else LOCAL,
        "kinds": list(model.roles),
        "takes_masks": model.takes_masks,
    }
