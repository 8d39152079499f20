"""Settings of a model: which one a role loads, how, and what belongs to it."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.fields import Strength, Text
from core.memory_modes import Memory
from core.noise_schedule import SchedulerSettings
from core.section import Section

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Count = Annotated[int, Field(ge=1)]


class LoadedModel(Section):
    """Which model a role loads, and how."""

    model: Annotated[str, Field(min_length=1)]
    revision: str | None
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None
    dtype: Dtype
    memory: Memory
    gpus_per_worker: Count | None
    workers_per_gpu: Annotated[int, Field(ge=1, le=16)] | None

    @model_validator(mode="after")
    def _one_kind_of_sharing(self) -> "LoadedModel":
        check_sharing(self.gpus_per_worker or 1, self.workers_per_gpu or 1, self.memory)
        return self


def check_sharing(gpus_per_worker: int, workers_per_gpu: int, memory: Memory, of: str = "") -> None:
    """Raises ValueError for settings of one model that exclude each other.

    Args:
        of: the section with its dot, where an error does not name it already.
    """
    if gpus_per_worker == 1:
        return
    if workers_per_gpu > 1:
        raise ValueError(
            f"gpus_per_worker: {gpus_per_worker} and {of}workers_per_gpu: {workers_per_gpu} "
            "exclude each other: either a worker has several GPUs, or a GPU several workers"
        )
    if memory not in ("auto", "full"):
        raise ValueError(
            f"{of}memory: {memory} is for workers with one GPU; with gpus_per_worker: "
            f"{gpus_per_worker} give full, or auto"
        )


class ModelLoraSettings(Section):
    """One LoRA that belongs to the model: a local file, or a file of a repository on the hub."""

    path: Annotated[Text, Field(min_length=1)]
    file: Annotated[str, Field(pattern=r"^[\w.-][\w./ -]*\.safetensors$")] | None = None
    revision: Annotated[str, Field(min_length=1)] | None = None
    strength: Strength = 1.0

    @property
    def is_hub_id(self) -> bool:
        return re.fullmatch(r"[\w.-]+/[\w.-]+", self.path, re.ASCII) is not None

    @model_validator(mode="after")
    def _one_place(self) -> "ModelLoraSettings":
        if self.file is not None and not self.is_hub_id:
            raise ValueError("with `file`, `path` is a repository on the hub, such as owner/name")
        if self.file is None and self.revision is not None:
            raise ValueError("`revision` is of a file on the hub: give `file`, too")
        return self


def _with_path(value: Any) -> Any:
    """A path alone may stand for a LoRA."""
    return {"path": value} if isinstance(value, str) else value


class DrawingModel(LoadedModel):
    """A model that draws or edits, with the LoRAs and the noise schedule that belong to it."""

    base_model: Annotated[str, Field(min_length=1)] | None
    model_loras: Annotated[
        list[Annotated[ModelLoraSettings, BeforeValidator(_with_path)]], Field(max_length=16)
    ]
    scheduler: SchedulerSettings
