"""The words that cross a process boundary and reach the user: tasks and results."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field

from core.fields import (
    Area,
    Metadata,
    MoreSources,
    Prompt,
    Quality,
    Scale,
    Seed,
    SeedOrRandom,
    Side,
    Source,
    Sources,
    Steps,
    Strength,
    Text,
    TextFields,
    no_bool,
)
from core.paths import as_text
from core.registry import Registry

MOST_LORAS = 16  # of one task
MAX_TASK_BYTES = 32_768  # a lease fits in the pipe's buffer, so that main never blocks on a send


def _members(value: Any) -> Any:
    """The LoRAs of a list as objects; a path, or [path, strength], stands for one, too."""
    if isinstance(value, str | Path | Mapping):
        value = [value]
    return [_member(lora) for lora in value] if isinstance(value, list | tuple) else value


def _member(lora: Any) -> Any:
    if isinstance(lora, list | tuple) and 1 <= len(lora) <= 2:
        lora = dict(zip(("path", "strength"), lora, strict=False))
    elif isinstance(lora, str | Path):
        lora = {"path": lora}
    if isinstance(lora, Mapping):
        return {k: as_text(v) if isinstance(v, Path) else v for k, v in lora.items()}
    return lora


@dataclass(frozen=True)
class Lora:
    """One LoRA of a task.

    Attributes:
        path: a LoRA in safetensors form.
        strength: 1.0 is the LoRA as trained, 0.0 is without it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=False)

    path: Annotated[Text, Field(min_length=1)]
    strength: Strength = 1.0


Loras = Annotated[tuple[Lora, ...], Field(max_length=MOST_LORAS), BeforeValidator(_members)]


class Task:
    """What one record is made for. Each kind of task is a frozen dataclass that inherits from it.

    Its values are those of JSON, tuples in place of lists. How such tasks are read from what a
    user wrote, and what decides their results, says a `core.intake.task_kinds.TaskKind`.

    Attributes:
        role: the name of the workers that serve such tasks.
        served_by: class or function that makes those workers' `workers.models.base.ModelFamily`
            from a spec and a log, as `module:name`; it is imported in the worker only.
        simulated_by: the same for `model: simulated`.
        of_pipelines: their models are pipelines of diffusers; others are one model of transformers.
        drawn_together: small pictures may be drawn several at once, as `max_batch` says.
        picture_fields: fields that hold paths of pictures that the task reads.
        output_path: where the result goes; see `core.store.outputs`.
        task_id: the name of the task in results and logs.
        seed: of whatever is drawn at random.
        metadata: anything JSON; kept with the result and never interpreted.
    """

    __slots__ = ()  # so that those of thousands of tasks count for something

    role: ClassVar[str]
    served_by: ClassVar[str]
    simulated_by: ClassVar[str] = "workers.simulated_gpu:SimulatedGpu"
    of_pipelines: ClassVar[bool] = True
    drawn_together: ClassVar[bool] = False
    picture_fields: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:  # every kind has these fields; as properties they would stand in their way

        @property
        def output_path(self) -> str | None: ...
        @property
        def task_id(self) -> str | None: ...
        @property
        def seed(self) -> int | None: ...
        @property
        def metadata(self) -> dict[str, Any]: ...
        def __init__(self, *args: Any, **fields: Any) -> None: ...

        __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        if Task in cls.__bases__:  # a class of a user's own, below one of these, is no other kind
            again = "__slots__" in vars(cls)  # for slots, `dataclass` makes a class a second time
            TASKS.add(cls.__name__, cls, again)
            ROLES.add(cls.role, cls, again)

    @property
    def lora_stack(self) -> tuple[Lora, ...]:
        """The task's LoRAs, in whichever of the two ways they were given."""
        path, strength = getattr(self, "lora_path", None), getattr(self, "lora_strength", 1.0)
        loras: tuple[Lora, ...] = getattr(self, "loras", ())
        return loras or ((Lora(path, strength),) if path else ())


T = TypeVar("T", bound=Task)
KINDS = "core.intake.kinds"  # the package with a file for each kind
TASKS: Registry[type[Task]] = Registry("kind of task", KINDS)
"""The kinds of task by the names of their classes."""
ROLES: Registry[type[Task]] = Registry("role", KINDS)
"""The kinds of task by the roles of the workers that serve them."""


@dataclass(frozen=True, slots=True)
class GenerateTask(Task):
    """One picture to draw from a prompt. Fields left at None take the model's default.

    Attributes:
        prompt: what to draw.
        negative_prompt: what to keep out; has an effect only with guidance.
        width: pixels, a multiple of 16.
        height: pixels, a multiple of 16.
        num_inference_steps: denoising steps.
        guidance_scale: in the meaning of the pipeline's own `guidance_scale`.
        cfg: guidance as ComfyUI writes it (1.0 = none), translated for each pipeline;
            give either this or `guidance_scale`.
        seed: of the initial noise, up to 2**64 - 1; -1 is one at random, which a rerun keeps;
            default `seed` of the settings + position.
        lora_path: a LoRA in safetensors form.
        lora_strength: 1.0 is the LoRA as trained, 0.0 is without it.
        loras: several LoRAs whose changes of the model add up, instead of `lora_path`.
        output_path: where the picture goes, a PNG, WebP or JPEG file; see `core.store.outputs`.
        task_id: the name of the task in results and logs.
        metadata: anything JSON; kept with the picture and never interpreted.
        picture_quality: of a JPEG or WebP file, 1 to 100; None is lossless for WebP. Of a PNG
            file it stays None.
        seed_is_random: set by admission where it chose `seed` itself, because -1 was asked for.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=False)
    role = "generate"
    served_by = "workers.models.native_image_generator:NativeImageGenerator"
    drawn_together = True

    prompt: Prompt
    negative_prompt: Text | None = None
    width: Side | None = None
    height: Side | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Scale | None = None
    cfg: Scale | None = None
    seed: SeedOrRandom | None = None
    lora_path: Text | None = None
    lora_strength: Strength = 1.0
    loras: Loras = ()
    output_path: Text | None = None
    task_id: Text | None = None
    metadata: Metadata = field(default_factory=dict)
    picture_quality: Quality | None = None
    seed_is_random: bool = False


@dataclass(frozen=True, slots=True)
class EditTask(Task):
    """One picture to change by an instruction. Fields left at None take the model's default.

    Attributes:
        instruction: what to change.
        source_images: picture files, the one to change first; models that take one use that.
        mask: a picture file, white (or else transparent) where the first source may change and
            black where it must not, with that one's aspect ratio; for the models of
            `core.masked_editors`.
        negative_prompt: what to keep out; has an effect only with guidance.
        width: pixels of the result; by default the source's aspect ratio at `working_area`.
        height: pixels of the result.
        working_area: pixels (width x height) at which the model sees and draws.
        condition_area: pixels at which the text encoder sees the source, where the model has
            one that does.
        num_inference_steps: denoising steps.
        guidance_scale: in the meaning of the pipeline's own `guidance_scale`.
        true_cfg_scale: classifier-free guidance; above 1 every step is computed twice.
        seed: of the initial noise; default `seed` of the settings + position.
        lora_path: a LoRA in safetensors form.
        lora_strength: 1.0 is the LoRA as trained, 0.0 is without it.
        loras: several LoRAs whose changes of the model add up, instead of `lora_path`.
        output_path: where the picture goes, a PNG, WebP or JPEG file; see `core.store.outputs`.
        task_id: the name of the task in results and logs.
        metadata: anything JSON; kept with the picture and never interpreted.
        picture_quality: of a JPEG or WebP file, as in `GenerateTask`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=False)
    role = "edit"
    served_by = "workers.models.native_image_editor:NativeImageEditor"
    picture_fields = ("source_images", "mask")

    instruction: Prompt
    source_images: Sources
    negative_prompt: Text | None = None
    width: Side | None = None
    height: Side | None = None
    working_area: Area | None = None
    condition_area: Area | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Scale | None = None
    true_cfg_scale: Scale | None = None
    seed: Seed | None = None
    lora_path: Text | None = None
    lora_strength: Strength = 1.0
    loras: Loras = ()
    output_path: Text | None = None
    task_id: Text | None = None
    metadata: Metadata = field(default_factory=dict)
    picture_quality: Quality | None = None
    mask: Source | None = None


@dataclass(frozen=True, slots=True)
class ScoreTask(Task):
    """One edit to judge. How it is judged is a matter of the judge's settings.

    Attributes:
        instruction: what was to be changed.
        source_images: the pictures before, as in the edit's task.
        edited_image: the picture after.
        target_images: pictures of a right result, for judges whose questions show them.
        reference_images: further pictures that questions show.
        mask: a picture, white where the edit may change the first source, for judges that compare
            the rest.
        fields: texts that questions name, as `{explain_en}` in a prompt file; by name.
        at_source_size: the edited picture is brought to the size of the first source before it is
            judged, as GEdit-Bench and EditScore do.
        seed: for judges that sample.
        more_asks: how often a judge of type vlm is asked beyond the usual twice while its answer
            cannot be read; which answers it gave before does not depend on it.
        output_path: where the verdict goes, a JSON file.
        task_id: the name of the task in results and logs.
        metadata: anything JSON; kept with the verdict and never interpreted.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=False)
    role = "score"
    served_by = "workers.judges.registry:create_judge"
    of_pipelines = False
    picture_fields = ("source_images", "edited_image", "target_images", "reference_images", "mask")

    instruction: Prompt
    source_images: Sources
    edited_image: Source
    target_images: MoreSources = ()
    reference_images: MoreSources = ()
    mask: Source | None = None
    fields: TextFields = field(default_factory=dict)
    at_source_size: bool = False
    seed: Seed | None = None
    more_asks: Annotated[int, Field(ge=0, le=100), BeforeValidator(no_bool)] = 0
    output_path: Text | None = None
    task_id: Text | None = None
    metadata: Metadata = field(default_factory=dict)


Status = Literal["done", "skipped", "failed", "quarantined", "timeout", "interrupted"]
"""done: drawn now. skipped: drawn by an earlier run and unchanged. quarantined: it killed its
workers again and again. timeout and interrupted: not tried to the end; a resumed run tries it."""


SUCCESSES: tuple[Status, ...] = ("done", "skipped")
FAILURES: tuple[Status, ...] = ("failed", "quarantined")


@dataclass(frozen=True)
class Result:
    """The one terminal record of one task. Fields read as attributes or as `result["success"]`.

    Attributes:
        position: place of the task in its input, from 0.
        success: there is a picture at `output_path`.
        elapsed: seconds of device time and saving of the attempt that ended the task.
        error: what went wrong and what to do, or None.
        worker: label of the worker that ended the task, or None.
        attempts: leases given out for the task in this run.
        cause: why it failed, in a word: input (it asks for what cannot be), lora (a LoRA that
            cannot be used), model (its model cannot be), exception (one of the program or a
            library, which another try would repeat), out_of_memory, device, storage, hung, crash,
            sigkill, or error; None where nothing failed, or an earlier run saw it.
    """

    position: int
    task_id: str
    status: Status
    output_path: str | None
    elapsed: float = 0.0
    error: str | None = None
    worker: str | None = None
    attempts: int = 0
    seed: int | None = None
    cause: str | None = None

    @property
    def success(self) -> bool:
        return self.status in SUCCESSES

    def as_dict(self) -> dict[str, Any]:
        """All fields and `success`, ready for JSON."""
        return {"success": self.success, **vars(self)}

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.keys() else default

    def keys(self) -> list[str]:
        return ["success", *(f.name for f in fields(self))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


def in_input_order(results: Iterable[Result]) -> list[Result]:
    """Results as their inputs stand."""
    return sorted(results, key=lambda result: result.position)


WHERE_SET = (
    "picture_quality", "mask", "target_images", "reference_images", "fields", "at_source_size",
)  # fmt: skip
"""Fields that neither records nor fingerprints know where they are not set."""


def fields_of(task: Task) -> dict[str, Any]:
    """The fields of a task by name; unlike `vars`, it leaves no dict with the task."""
    return {name: getattr(task, name) for name in type(task).__dataclass_fields__}


def task_to_json(task: Task) -> dict[str, Any]:
    """All fields, and under `kind` the name of the class.

    Fields that came later are there only where they are set: records of others stay as they always
    were.
    """
    data = {"kind": type(task).__name__, **fields_of(task)}
    loras = data.pop("loras", ())
    for name in WHERE_SET:
        if not data.get(name):
            data.pop(name, None)
    return {**data, "loras": [vars(lora) for lora in loras]} if loras else data


def task_from_json(data: Mapping[str, Any]) -> Task:
    """Rebuild a task that this project wrote itself; user input goes through admission."""
    fields_ = dict(data)
    kind = TASKS[fields_.pop("kind")]
    if "loras" in fields_:
        fields_["loras"] = tuple(Lora(**lora) for lora in fields_["loras"])
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields_.items()})


def with_paths(task: T, change: Callable[[str], str]) -> T:
    """A copy of the task with `change` applied to the path of every file that it reads."""
    changed: dict[str, Any] = {}
    if getattr(task, "lora_path", None):
        changed["lora_path"] = change(task.lora_path)  # type: ignore[attr-defined]
    if getattr(task, "loras", ()):
        loras = task.loras  # type: ignore[attr-defined]
        changed["loras"] = tuple(replace(lora, path=change(lora.path)) for lora in loras)
    for name in task.picture_fields:
        changed[name] = _each(getattr(task, name), change)
    return replace(task, **changed)


def paths_in(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The paths in a picture field, which may hold one, several or none."""
    return (value,) if isinstance(value, str) else value or ()


def _each(value: str | tuple[str, ...] | None, change: Callable[[str], str]) -> Any:
    return change(value) if isinstance(value, str) else value and tuple(map(change, value))
