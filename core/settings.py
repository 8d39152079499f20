"""The YAML settings as validated models. `config/default.yaml` holds every default."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from core.fields import Area, Quality, Scale, SeedOrRandom, Side, Steps, Strength, Text
from core.judge_api import ApiSettings
from core.judge_type import JUDGES
from core.model_identity import Identity
from core.model_settings import Count, DrawingModel, LoadedModel
from core.section import Section
from core.settings_file import overlaid

PROJECT_DIR = Path(__file__).resolve().parent.parent
DEFAULT_FILE = PROJECT_DIR / "config" / "default.yaml"

M = TypeVar("M", bound="Matching")
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OptionalSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _known_mode(value: Any) -> Any:
    if value == "auto":
        raise ValueError(
            "there is no auto any more, as no GPU has shown that it pays; write always or never"
        )
    return value


Compile = Annotated[Literal["never", "always"], BeforeValidator(_known_mode)]


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
    """Default values for fields of an edit."""

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
        """Kind and settings of the cache in one word, for fingerprints and a picture's record."""
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
    picture_format: Literal["png", "webp", "jpeg"]
    picture_quality: Quality | None

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
        """Ending of pictures without an output path of their own, with its dot."""
        return ".jpg" if self.picture_format == "jpeg" else f".{self.picture_format}"

    @field_validator("picture_quality")
    @classmethod
    def _of_a_lossy_format(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and others.data.get("picture_format") == "png":
            raise ValueError("it is for picture_format: jpeg or webp; PNG is lossless")
        return value


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
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None
    top_k: Count | None
    num_pass: Annotated[int, Field(ge=1, le=64)] | None
    minimum_mass: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    experts_implementation: str | None
    lora: Annotated[Text, Field(min_length=1)] | None
    lora_revision: Annotated[str, Field(min_length=1)] | None
    api: ApiSettings


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


Engine = Literal["local", "ray"]


class RaySettings(Section):
    """A Ray cluster, for `engine: ray`; see docs/CLUSTER.md."""

    address: Annotated[str, Field(min_length=1)] | None
    node_timeout: OptionalSeconds
    fence_timeout: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    cache_dir: Annotated[str, Field(min_length=1)]
    cache_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _known_server(value: str) -> str:
    if value in ("auto", "never") or value.startswith(("http://", "https://")):
        return value
    raise ValueError("expected auto, never, or the URL of a server such as http://127.0.0.1:8000")


UseServer = Annotated[str, AfterValidator(_known_server)]


class Settings(DrawingModel):
    """All settings of a run; see config/default.yaml for what each one means.

    Attributes:
        editor: what the user says of the model that edits, unread, as the next two are: see
            `core.edit_settings`. None where it is nothing.
        judge: of the model that scores.
        judge_model_defaults: of models that score.
        judge_protocols: their prompt files by data set.
    """

    other_names: ClassVar[Mapping[str, str]] = {  # of keys, as people write them
        "steps": "defaults.num_inference_steps",
        "cfg_scale": "defaults.cfg",
        "guidance": "defaults.guidance_scale",
        "negative": "defaults.negative_prompt",
        "lora": "model_loras",
        "loras": "model_loras",
        "format": "workers.picture_format",
        "quality": "workers.picture_quality",
    }

    engine: Engine
    ray: RaySettings
    use_server: UseServer
    gallery: bool
    server_timeout: Seconds
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
    editor: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    judge_model_defaults: list[Any] | None = None
    judge_protocols: dict[str, Any] | None = None

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
