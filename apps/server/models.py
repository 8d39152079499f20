"""`/v1/models`: what this daemon draws, edits and scores with."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from apps.server.errors import ApiError, bad_value
from core import MultiGPUImageGenerator
from core.devices.model_choice import ModelChoice, is_hub_model
from core.errors import MultiGPUError
from core.worker_spec import Role

router = APIRouter(prefix="/v1/models", tags=["models"])
ROLES: tuple[Role, ...] = ("generate", "edit", "score")
DOES = {"generate": "draws pictures", "edit": "edits pictures", "score": "scores edits"}
AUTO = "auto"
LOCAL = "local"  # the owner of models that are no hub's
_HASH = re.compile(r"#[0-9a-f]{16}$")


@dataclass(frozen=True)
class Served:
    """A model as clients call it, and the kinds of task that it is for."""

    id: str
    roles: tuple[Role, ...]


class Models:
    """The models of a generator, by the names that clients use.

    A model is chosen when somebody asks for it first; one that cannot be used is not listed.
    """

    def __init__(self, generator: MultiGPUImageGenerator) -> None:
        self._generator = generator
        self._known: dict[Role, str] = {}
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
                raise ApiError(
                    503, f"No model here {DOES[role]}: {error}", "model_unavailable",
                    "model", "server_error",
                ) from None  # fmt: skip
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
        if name in (AUTO, serving):
            return serving
        if any(name == model.id for model in await self.all()):
            message = f"The model '{name}' is not the one that {DOES[role]}; that is '{serving}'."
            raise bad_value("model", message, "model_not_supported")
        raise unknown_model(name)

    async def all(self) -> list[Served]:
        """Every model that can be used."""
        roles: dict[str, list[Role]] = {}
        for role in ROLES:
            try:
                roles.setdefault(await self.serving(role), []).append(role)
            except ApiError:
                continue
        return [Served(name, tuple(its)) for name, its in roles.items()]


def name_of(model: ModelChoice) -> str:
    """What clients call a model: its hub id, or the name of its folder or file."""
    if is_hub_model(model.path_or_id):
        return model.path_or_id
    return _HASH.sub("", model.identity)


def unknown_model(name: str) -> ApiError:
    """404: no such model is served."""
    return ApiError(
        404,
        f"The model `{name}` does not exist or you do not have access to it.",
        "model_not_found",
        "model",
    )


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


TheModels = Annotated[Models, Depends(_models)]


@router.get("")
async def listed(models: TheModels) -> dict[str, Any]:
    """All models that are served."""
    data = [_view(model, models.since) for model in await models.all()]
    return {"object": "list", "data": data}


@router.get("/{id:path}")
async def read(id: str, models: TheModels) -> dict[str, Any]:
    """One model. Ids of Hugging Face have a slash, which may stand as it is or as %2F."""
    for model in await models.all():
        if model.id == id:
            return _view(model, models.since)
    raise unknown_model(id)


def _view(model: Served, since: int) -> dict[str, Any]:
    owner, slash, _ = model.id.partition("/")
    return {
        "id": model.id,
        "object": "model",
        "created": since,
        "owned_by": owner if slash else LOCAL,
        "kinds": list(model.roles),
    }
