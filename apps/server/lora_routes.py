"""`/v1/loras`: the LoRAs that callers may name, and which of them workers hold."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from apps.server.context import Operator, TheLoras, TheService
from apps.server.document import errors
from apps.server.errors import ApiError, not_found
from apps.server.loras import FileView, LoraEntry, Loras, view
from apps.server.paging import Listing
from apps.server.pinned_loras import PinnedLoras
from apps.server.public_results import hidden_folders
from apps.server.service import Service
from apps.server.state import kept
from apps.server.workers import snapshot_of
from core.engine.snapshot import LoraSnapshot
from core.errors import LoraError, MultiGPUError
from core.validation import shown

ThePins = Annotated[PinnedLoras, Depends(kept("pinned_loras"))]
router = APIRouter(prefix="/v1/loras", tags=["loras"])


class LoraRequest(BaseModel):
    """What workers are to do with a LoRA.

    Attributes:
        name: as `GET /v1/loras` lists it.
        action: `load`: read it now, and keep it until others displace it. `pin`: keep it whatever
            else is used, also on workers that load the model later. `unload`: do neither.
        kind: of the tasks whose model it is for.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=1000)
    action: Literal["load", "pin", "unload"]
    kind: Literal["generate", "edit"] = "generate"


class LoadError(TypedDict):
    """Why a worker does not hold a LoRA as it should; the kind is that of the model's tasks."""

    worker: str
    kind: str
    message: str


class LoraView(FileView):
    """A LoRA, and how workers stand to it.

    Attributes:
        loaded_on: names of workers that hold it.
        pinned_for: kinds of task whose workers are to hold it for good.
    """

    loaded_on: list[str]
    pinned_for: list[str]
    load_errors: list[LoadError]


@router.get("")
async def list_loras(loras: TheLoras, service: TheService) -> Listing[LoraView]:
    """All LoRAs of the folder: those that cannot be used and why, and which workers hold them."""
    return {"object": "list", "data": list((await _views(loras, service)).values())}


@router.get("/{name}", responses=errors(404))
async def read_lora(name: str, loras: TheLoras, service: TheService) -> LoraView:
    """One LoRA by its name."""
    return _named(name, await _views(loras, service))


@router.post("", status_code=202, responses=errors(404, 409, 507))
async def change_lora(
    asked: LoraRequest,
    loras: TheLoras,
    pins: ThePins,
    service: TheService,
    caller: Operator,
) -> LoraView:
    """Have workers load, pin or unload a LoRA, each after the task that it runs.

    What becomes of it says `GET /v1/loras/{name}`: `loaded_on`, `pinned_for`, `load_errors`.
    """
    async with pins.changing:
        if asked.action == "unload":
            paths = await _held(asked, loras, service)
            name = await asyncio.to_thread(loras.plain, asked.name)
            # First, so that a disk that refuses leaves it as it was, here and for the next process.
            await asyncio.to_thread(pins.note, asked.kind, name, False)
            await asyncio.to_thread(service.generator.unload_loras, paths, asked.kind)
        else:
            path = await asyncio.to_thread(loras.resolve, asked.name, "name", asked.kind)
            await _load(asked, path, service)
            name = await asyncio.to_thread(loras.plain, asked.name)
            if asked.action == "pin":
                await asyncio.to_thread(pins.note, asked.kind, name, True)
    return _named(name, await _views(loras, service))


async def _load(asked: LoraRequest, path: str, service: Service) -> None:
    generator = service.generator
    try:
        await asyncio.to_thread(generator.served, asked.kind)
    except MultiGPUError as error:
        raise ApiError(409, str(error), "model_not_usable", "kind") from None
    try:
        pin = asked.action == "pin"
        await asyncio.to_thread(generator.load_loras, path, pin, asked.kind)
    except LoraError as error:  # it has changed since it was listed
        message = _without_folders(str(error), hidden_folders(service))
        raise ApiError(400, f"name: {message}", "invalid_lora", "name") from None
    except MultiGPUError as error:
        raise ApiError(409, f"{asked.name}: {error}", "lora_not_loaded", "name") from None


async def _held(asked: LoraRequest, loras: Loras, service: Service) -> list[str]:
    """Where what was loaded under a name lay, even if its file is gone, or is another one now."""
    known = (await snapshot_of(service)).loras
    paths = [lora.path for lora in known if lora.path and loras.named(lora.path, asked.name)]
    return paths or [await asyncio.to_thread(loras.resolve, asked.name, "name")]


def _named(name: str, views: Mapping[str, LoraView]) -> LoraView:
    if name not in views:
        raise not_found(f"No LoRA is called {shown(name)}.", "lora_not_found")
    return views[name]


async def _views(loras: Loras, service: Service) -> dict[str, LoraView]:
    """All LoRAs as callers see them, by name."""
    known = (await snapshot_of(service)).loras
    return await asyncio.to_thread(_seen, loras, known, hidden_folders(service))


def _seen(
    loras: Loras, known: Sequence[LoraSnapshot], folders: Mapping[str, str]
) -> dict[str, LoraView]:
    found: dict[str, LoraView] = {}
    entries = {**loras.gone([lora.path for lora in known if lora.path]), **loras.entries()}
    for name, entry in sorted(entries.items()):
        own = [lora for lora in known if lora.path == str(entry.path)]
        if own and not entry.is_gone:
            sha256 = loras.sha256(entry)
            own = [lora for lora in own if lora.sha256 == sha256]
        found[name] = _view(entry, own, folders)
    return found


def _view(entry: LoraEntry, loras: Sequence[LoraSnapshot], folders: Mapping[str, str]) -> LoraView:
    """A LoRA, which may be one of several models."""
    return {
        **view(entry),
        "loaded_on": sorted(name for lora in loras for name in lora.workers),
        "pinned_for": sorted(lora.role for lora in loras if lora.pinned),
        "load_errors": [
            {"worker": worker, "kind": lora.role, "message": _without_folders(problem, folders)}
            for lora in loras
            for worker, problem in sorted(lora.problems.items())
        ],
    }


def _without_folders(text: str, folders: Mapping[str, str]) -> str:
    for folder, stand_in in folders.items():
        text = text.replace(folder, stand_in)
    return text.removeprefix("lora_path: ")
