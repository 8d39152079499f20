"""The YAML settings as validated models. `config/default.yaml` holds every default."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from core.errors import InputError
from core.judge_type import JUDGES
from core.memory_modes import Memory
from core.model_identity import Identity
from core.noise_schedule import SchedulerSettings
from core.paths import user_path
from core.section import Section
from core.tasks import Area, Scale, SeedOrRandom, Side, Steps, Strength, Text
from core.validation import Place, describe
from core.yaml_files import parse_yaml

PROJECT_DIR = Path(__file__).resolve().parent.parent
DEFAULT_FILE = PROJECT_DIR / "config" / "default.yaml"
MAX_FILE_BYTES = 200_000

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
M = TypeVar("M", bound="Matching")
S = TypeVar("S", bound=BaseModel)
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OptionalSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Threshold = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _known_mode(value: Any) -> Any:
    if value == "auto":
        raise ValueError(
            "there is no auto any more, as no GPU has shown that it pays; write always or never"
        )
    return value


Compile = Annotated[Literal["never", "always"], BeforeValidator(_known_mode)]


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


class GenerationDefaults(Section):
    """Task fields that a layer of settings may fill in; None leaves them to the next layer."""

    negative_prompt: Text | None = None
    width: Side | None = None
    height: Side | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Scale | None = None
    cfg: Scale | None = None

    @model_validator(mode="after")
    def _one_guidance(self) -> "GenerationDefaults":
        if self.cfg is not None and self.guidance_scale is not None:
            raise ValueError("give either cfg or guidance_scale, not both")
        return self


class Matching(Section):
    """An entry of a list of defaults by model."""

    match: str


class ModelDefaults(Matching, GenerationDefaults):
    """Defaults of the models that `match` fits."""


class EditDefaults(Section):
    """The same for fields of an edit."""

    negative_prompt: Text | None = None
    width: Side | None = None
    height: Side | None = None
    working_area: Area | None = None
    condition_area: Area | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Scale | None = None
    true_cfg_scale: Scale | None = None
    lora_path: Annotated[Text, Field(min_length=1)] | None = None
    lora_strength: Strength | None = None

    @model_validator(mode="after")
    def _strength_of_a_lora(self) -> "EditDefaults":
        if self.lora_strength is not None and self.lora_path is None:
            raise ValueError("lora_strength is of a lora_path, which is missing here")
        return self


class ModelEditDefaults(Matching, EditDefaults):
    """Defaults of the models that `match` fits."""


class StepCache(Section):
    """How a model leaves out work in some steps, in diffusers' words for it."""

    kind: ClassVar[str]

    def __str__(self) -> str:
        """Its kind and settings in one word, for fingerprints and for a picture's record."""
        settings = [f"{k}={v}".replace(" ", "") for k, v in self if v is not None]
        return f"{self.kind}({','.join(settings)})"


class FirstBlockCache(StepCache):
    kind = "first_block"
    threshold: Threshold


class TaylorSeerCache(StepCache):
    kind = "taylorseer"
    cache_interval: Count
    disable_cache_before_step: Count
    max_order: Annotated[int, Field(ge=0, le=4)]


class MagCache(StepCache):
    kind = "mag"
    threshold: Threshold
    max_skip_steps: Count
    retention_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    mag_ratios: Annotated[tuple[Threshold, ...], Field(min_length=2, max_length=1000)] | None


class WorkerSettings(Section):
    start_method: Literal["auto", "forkserver", "spawn"]
    concurrent_loads: Literal["auto"] | Count
    max_batch: Literal["auto"] | Annotated[int, Field(ge=1, le=64)]
    attention_backend: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    compile: Compile
    step_cache: Literal["none", "first_block", "taylorseer", "mag"]
    first_block_cache: FirstBlockCache
    taylorseer_cache: TaylorSeerCache
    mag_cache: MagCache
    max_resident_loras: Annotated[int, Field(ge=1, le=24)]
    max_cached_prompts: Annotated[int, Field(ge=0, le=10_000)]
    max_pending_saves: Annotated[int, Field(ge=1, le=64)]
    picture_format: Literal["png", "webp"]

    def decisive(self, identity: str) -> str:
        """A model's identity together with the settings here that change its pixels to the eye."""
        known, others = Identity.read(identity), {}
        if self.chosen_cache:
            others["step_cache"] = str(self.chosen_cache)
        backend = None if self.attention_backend == "auto" else self.attention_backend
        return str(replace(known, others={**known.others, **others}, backend=backend))

    @property
    def chosen_cache(self) -> StepCache | None:
        """The step cache that is on, with its settings."""
        caches = (self.first_block_cache, self.taylorseer_cache, self.mag_cache)
        return next((cache for cache in caches if cache.kind == self.step_cache), None)

    @field_validator("step_cache")
    @classmethod
    def _goes_together(cls, value: str, others: ValidationInfo) -> str:
        if value != "none" and others.data.get("compile") == "always":
            raise ValueError(
                "a step cache decides between the blocks whether to go on, which compiled blocks "
                "(compile: always) do not allow; turn one of the two off"
            )
        if value == "first_block" and others.data.get("max_batch", 1) != 1:
            raise ValueError(
                "it decides for all pictures of a batch at once, so it needs max_batch: 1, not "
                f"{others.data['max_batch']}"
            )
        return value

    @property
    def picture_suffix(self) -> str:
        """With its dot."""
        return f".{self.picture_format}"


def _known_judge(value: str) -> str:
    if value not in JUDGES:
        raise ValueError(f"Input should be one of {', '.join(JUDGES)}")
    return value


class JudgeSettings(LoadedModel):
    """How edits are scored; see config/edit_benchmark.yaml."""

    type: Annotated[str, AfterValidator(_known_judge)]
    prompts: str | None
    batch_size: Count
    max_new_tokens: Count | None
    image_area: Area | None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
    minimum_mass: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    experts_implementation: str | None


class SupervisionSettings(Section):
    boot_timeout: Seconds
    load_timeout: Seconds
    load_stall_timeout: Seconds
    task_timeout: Seconds | None
    task_timeout_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    task_timeout_minimum: Seconds
    first_task_timeout: Seconds
    stop_timeout: Seconds
    kill_timeout: Seconds
    max_attempts: Count
    crashes_before_quarantine: Count
    kills_before_quarantine: Count
    restart_backoff: OptionalSeconds
    restart_backoff_maximum: OptionalSeconds
    restarts_before_retirement: Count


class SchedulingSettings(Section):
    max_passed_over: Count
    speculative_copies: bool


class SimulatedSettings(Section):
    load_seconds: OptionalSeconds
    lora_load_seconds: OptionalSeconds
    seconds_per_megapixel_step: OptionalSeconds
    score_seconds: OptionalSeconds
    jitter: Annotated[float, Field(ge=0, le=1)]
    slowness: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    lost_while: dict[str, str]


class Settings(DrawingModel):
    """All settings of a run; see config/default.yaml for what each one means."""

    device: Literal["auto", "cuda", "cpu"]
    output_dir: Annotated[str, Field(min_length=1)]
    lora_dir: Annotated[str, Field(min_length=1)]
    seed: SeedOrRandom
    defaults: GenerationDefaults
    model_defaults: list[ModelDefaults]
    workers: WorkerSettings
    supervision: SupervisionSettings
    scheduling: SchedulingSettings
    simulated: SimulatedSettings

    def defaults_for(self, *models: str) -> GenerationDefaults:
        """The `model_defaults` entry for the names of a model; an empty one if none fits."""
        return best_match(self.model_defaults, *models) or GenerationDefaults()


def best_match(entries: Sequence[M], *models: str) -> M | None:
    """The first entry whose `match` fits a model id, folder or file.

    Args:
        models: names of one model; where no entry fits the first, the next one counts.
    """
    names = [model.rstrip("/").lower() for model in models]
    fitting = (e for name in names for e in entries if fnmatch(name, e.match.lower()))
    return next(fitting, None)


def load_settings(source: "str | Path | Mapping[str, Any] | Settings | None" = None) -> Settings:
    """Settings from a YAML file or a mapping, laid over `config/default.yaml`.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    if isinstance(source, Settings):
        return source
    return overlaid(Settings, [DEFAULT_FILE], source)


def overlaid(
    kind: type[S], files: Sequence[Path], source: str | Path | Mapping[str, Any] | None
) -> S:
    """Settings from YAML files, each laid over the one before, and `source` over all of them.

    Only the keys of `kind` are taken from the first files, so that one file can hold the
    defaults of several kinds of run.
    """
    base: dict[str, Any] = {}
    for file in files:
        base = _overlay(base, _read_yaml(file))
    base = {key: value for key, value in base.items() if key in kind.model_fields}
    if source is None:
        return _validate(kind, base, files[-1].name)
    if isinstance(source, Mapping):
        return _validate(kind, _overlay(base, source), "config")
    given = _read_yaml(user_path(source, "config"))
    return _validate(kind, _overlay(base, given), str(source))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: larger than 200 kB, which no settings file is.")
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except ValueError as error:  # also of a path with a NUL
        raise InputError(f"{path}: {error}.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected `key: value` lines, found a {type(data).__name__}.")
    return data


def _overlay(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins; sections merge key by key, lists and values are replaced whole."""
    merged = copy.copy(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            value = _overlay(dict(base[key]), value)
        merged[key] = value
    return merged


def _validate(kind: type[S], data: Mapping[str, Any], origin: str) -> S:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{origin}: {describe(error, partial(_keys_at, kind))}") from None


def _keys_at(kind: type[BaseModel], place: Place) -> list[str]:
    """The keys that may stand beside the one at `place`."""
    for part in place[:-1]:
        if isinstance(part, str):
            field = kind.model_fields.get(part)
            inside = (field.annotation, *get_args(field.annotation)) if field else ()
            models = [a for a in inside if isinstance(a, type) and issubclass(a, BaseModel)]
            if not models:
                return []
            kind = models[0]
    return list(kind.model_fields)
