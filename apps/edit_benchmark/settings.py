"""The benchmark's settings: config/edit_benchmark.yaml over the shared sections of the default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from apps.edit_benchmark.mapped import Columns, Name
from apps.edit_benchmark.output_size import OutputSize
from apps.edit_benchmark.pairs import SeedBy
from apps.edit_benchmark.selection import Choice
from core.edit_settings import BENCHMARK_FILE, EditModels
from core.engine.model_switch import Stages
from core.fields import Seed
from core.model_settings import Count, LoadedModel, check_sharing
from core.settings import (
    DEFAULT_FILE,
    Engine,
    RaySettings,
    SchedulingSettings,
    Seconds,
    SimulatedSettings,
    SupervisionSettings,
    UseServer,
    WorkerSettings,
)
from core.settings_file import overlaid

Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class BenchmarkSettings(EditModels):
    """All settings of a benchmark run."""

    data: Annotated[str, Field(min_length=1)]
    fields: dict[Name, Columns] | None
    language: Names | str | None
    subset: Names | str | None
    categories: Names | None
    sample: Count | None
    sample_seed: Seed | None
    limit: Count | None
    seed_by: SeedBy
    edits_per_pair: Count
    output_size: OutputSize
    output_dir: Annotated[str, Field(min_length=1)]
    lora_dir: Annotated[str, Field(min_length=1)]
    seed: Seed
    engine: Engine
    ray: RaySettings
    use_server: UseServer
    gallery: bool
    server_timeout: Seconds
    device: Literal["auto", "cuda", "cpu"]
    device_ids: Ids | None
    parallel_mode: Literal["single", "data_parallel", "model_parallel"]
    gpus_per_worker: Count | None
    cpu_workers: Count
    stages: Stages
    enable_batch_sync: bool
    vram_release_timeout: Annotated[float, Field(gt=0)]
    bootstrap_samples: Annotated[int, Field(ge=100, le=1_000_000)]
    workers: WorkerSettings
    supervision: SupervisionSettings
    scheduling: SchedulingSettings
    simulated: SimulatedSettings

    @model_validator(mode="after")
    def _groups_only_where_the_model_is_spread(self) -> "BenchmarkSettings":
        if (self.gpus_per_worker or 1) > 1 and self.parallel_mode != "model_parallel":
            raise ValueError("gpus_per_worker above 1 needs parallel_mode: model_parallel")
        return self

    @property
    def choice(self) -> Choice:
        """Which pairs of the data are run."""
        return Choice(
            languages=_listed(self.language),
            subsets=[_split(text) for text in _listed(self.subset)],
            categories=self.categories,
            sample=self.sample,
            sample_seed=self.seed if self.sample_seed is None else self.sample_seed,
            limit=self.limit,
        )

    def shares_of(self, role: LoadedModel) -> tuple[int | None, int]:
        """GPUs per worker (None = all) and workers per GPU of the editor or the judge."""
        gpus = self.gpus_per_worker if self.parallel_mode == "model_parallel" else 1
        if role.gpus_per_worker is not None:
            gpus = role.gpus_per_worker
        return gpus, role.workers_per_gpu or 1

    @model_validator(mode="after")
    def _roles_share_gpus_in_ways_that_exist(self) -> "BenchmarkSettings":
        shares = []
        for name, role in (("editor", self.editor), ("judge", self.judge)):
            gpus, workers = self.shares_of(role)
            if self.parallel_mode == "single" and workers > 1:
                raise ValueError(
                    f"{name}.workers_per_gpu: {workers} excludes parallel_mode: single, which is "
                    "one worker"
                )
            if gpus is None and workers > 1:
                raise ValueError(
                    f"{name}.workers_per_gpu: {workers} needs {name}.gpus_per_worker: 1, because "
                    "parallel_mode: model_parallel gives a worker all GPUs"
                )
            if gpus is not None:
                check_sharing(gpus, workers, role.memory, f"{name}.")
            shares.append((gpus, workers))
        if self.stages == "overlapped" and shares[0] != shares[1]:
            raise ValueError(
                "stages: overlapped lets GPUs change between editor and judge, so both need the "
                "same gpus_per_worker and workers_per_gpu; give them the same, or stages: "
                "sequential"
            )
        return self


def _listed(value: list[str] | str | None) -> list[str]:
    if isinstance(value, str):
        return _split(value)
    return value or []


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def load_benchmark_settings(
    source: str | Path | Mapping[str, Any] | None = None,
) -> BenchmarkSettings:
    """Settings from a YAML file or a mapping, laid over the shipped ones.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    return overlaid(BenchmarkSettings, [DEFAULT_FILE, BENCHMARK_FILE], source)
