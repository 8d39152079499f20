"""What differs between kinds of task before they run: fields, defaults, files, expected work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from core.checkpoints.lora_files import LoraInspector, find_lora
from core.errors import InputError, LoraError
from core.intake.picture_settings import USUAL_NAMES, named_fields
from core.intake.setting_values import is_empty, is_set
from core.lora_stack import fields_for
from core.paths import as_text
from core.pictures.source_images import SourceImage, inspect_image, size_for
from core.settings import EditDefaults, GenerationDefaults
from core.store.outputs import PICTURE_SUFFIXES
from core.tasks import EditTask, GenerateTask, Lora, ScoreTask, Task
from core.validation import describe, misspelt, shown

TaskInput = Mapping[str, Any] | Task | InputError
"""What may stand for a task in a batch; an InputError is a task that its reader gave up on."""

T = TypeVar("T", GenerateTask, EditTask, ScoreTask)
# Made once: that takes a millisecond, many times as long as to use one.
_VALIDATORS: dict[Any, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (GenerateTask, EditTask, ScoreTask)
}
# Those whose values have one form; LoRAs have as many as in a tweets file.
_PLAIN_FIELDS = {f.name for f in fields(GenerateTask)} - {"loras"}
_OTHER_NAMES: dict[Any, list[str]] = {GenerateTask: USUAL_NAMES}  # that hints may name
USUAL_STEPS = 30
_TWO_WAYS = "loras: give either loras or lora_path, not both."
_GUIDANCE = ("guidance_scale", "cfg")  # two spellings of one setting: a layer sets one of them


@dataclass(frozen=True)
class Contents:
    """Content hashes of the files that a task reads; pictures by their path.

    Attributes:
        lora: of `lora_path`.
        readings: rules by which pictures are read whose numbers are not plain sRGB.
        loras: of the task's `loras`, in their order.
    """

    lora: str | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    readings: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()


class TaskKind(Protocol):
    """One kind of task, for `core.intake.admission`. Methods raise InputError."""

    suffixes: tuple[str, ...]  # that its outputs may have

    def parse(self, given: Mapping[str, Any] | Task) -> Task:
        """The task as the user wrote it, every field of the right type."""

    def complete(self, task: Any) -> tuple[Task, Contents]:
        """Fill in what is left open, find and check its files."""

    def work(self, task: Any) -> float:
        """Expected work, in any unit that is the same for all tasks of the kind."""


class LoraFinder:
    """Finds and checks LoRA files, each once: one finder is for one batch.

    Args:
        folders: where relative paths are looked up, in this order.
    """

    def __init__(self, folders: Sequence[Path], inspector: LoraInspector) -> None:
        self._folders = folders
        self._inspector = inspector
        self._found: dict[str, tuple[str, str]] = {}

    def find(self, path: str | None) -> tuple[str | None, str | None]:
        """The file and its content hash; None for none."""
        if path is None:
            return None, None
        if path not in self._found:
            file = find_lora(path, self._folders)
            self._found[path] = str(file), self._inspector.sha256(file)
        return self._found[path]

    def stack(self, task: GenerateTask | EditTask) -> tuple[dict[str, Any], Contents]:
        """The fields of a task that say its LoRAs, and their content hashes.

        Raises:
            LoraError: one of them is no LoRA, or one is there twice.
        """
        if not task.loras:
            path, sha256 = self.find(task.lora_path)
            return {"lora_path": path}, Contents(sha256)
        found: list[Lora] = []
        named: dict[str, int] = {}  # content hash: place
        for place, lora in enumerate(task.loras):
            try:
                path, sha256 = self.find(lora.path)
            except InputError as error:
                text = str(error).removeprefix("lora_path: ")
                raise LoraError(f"loras[{place}]: {text}") from None
            assert path is not None and sha256 is not None
            first = named.setdefault(sha256, place)
            if first != place:
                raise LoraError(
                    f"loras[{place}]: {shown(lora.path)} is the same LoRA as loras[{first}]; give "
                    "it once, with one strength."
                )
            found.append(Lora(path, lora.strength))
        hashes = tuple(named)
        one = hashes[0] if len(hashes) == 1 else None
        return fields_for(found), Contents(one, loras=() if one else hashes)


class GenerateKind:
    """Pictures from prompts. `layers` of defaults: the first that sets a field wins."""

    suffixes: tuple[str, ...] = PICTURE_SUFFIXES

    def __init__(self, layers: Sequence[GenerationDefaults], loras: LoraFinder) -> None:
        self._layers = layers
        self._loras = loras

    def parse(self, given: Mapping[str, Any] | Task) -> GenerateTask:
        if isinstance(given, Mapping) and not given.keys() <= _PLAIN_FIELDS:
            if all(_says(given.get(name)) for name in ("loras", "lora_path")):
                raise InputError(_TWO_WAYS)
            given = named_fields(given)
        task = _parse(GenerateTask, given, needed="prompt")
        if task.guidance_scale is not None and task.cfg is not None:
            raise InputError("cfg: give either cfg or guidance_scale, not both.")
        return task

    def complete(self, task: GenerateTask) -> tuple[GenerateTask, Contents]:
        values = dict(vars(task))
        for layer in self._layers:
            guided = any(values[name] is not None for name in _GUIDANCE)
            _fill(values, layer, skipped=_GUIDANCE if guided else ())
        loras, contents = self._loras.stack(task)
        return GenerateTask(**{**values, **loras}), contents

    def work(self, task: GenerateTask) -> float:
        """Megapixels x steps x forward passes per step, with usual values where one is open."""
        guided = (task.cfg or 1.0) > 1.0 if task.cfg is not None else (task.guidance_scale or 0) > 0
        return _megapixel_steps(task) * (2 if guided else 1)


class EditKind:
    """Pictures changed by instructions. Without a size, the first source's aspect ratio."""

    suffixes: tuple[str, ...] = PICTURE_SUFFIXES

    def __init__(self, layers: Sequence[EditDefaults], loras: LoraFinder) -> None:
        self._layers = layers
        self._loras = loras

    def parse(self, given: Mapping[str, Any] | Task) -> EditTask:
        return _parse(EditTask, given, needed="instruction")

    def complete(self, task: EditTask) -> tuple[EditTask, Contents]:
        values = dict(vars(task))
        for layer in self._layers:
            if not task.loras and values["lora_path"] is None and layer.lora_path is not None:
                # The task's strength is of a LoRA that it does not have.
                values["lora_strength"] = (
                    1.0 if layer.lora_strength is None else layer.lora_strength
                )
            _fill(values, layer, skipped=("lora_path",) if task.loras else ())
        pictures = {path: inspect_image(path) for path in task.source_images}
        first = pictures[task.source_images[0]]
        area = values["working_area"]
        if area is not None and values["width"] is None and values["height"] is None:
            values["width"], values["height"] = size_for(first.width, first.height, area)
        completed = EditTask(**values)
        loras, contents = self._loras.stack(completed)
        return replace(completed, **loras), _contents(pictures, contents)

    def work(self, task: EditTask) -> float:
        """Megapixels x steps x passes x pictures that attention sees."""
        guided = (task.true_cfg_scale or 1.0) > 1.0 and task.negative_prompt is not None
        pictures = 1 + len(task.source_images)
        return _megapixel_steps(task) * (2 if guided else 1) * pictures


class ScoreKind:
    """Verdicts on edits."""

    suffixes: tuple[str, ...] = (".json",)

    def parse(self, given: Mapping[str, Any] | Task) -> ScoreTask:
        return _parse(ScoreTask, given, needed="instruction")

    def complete(self, task: ScoreTask) -> tuple[ScoreTask, Contents]:
        pictures = {path: inspect_image(path) for path in task.source_images}
        pictures[task.edited_image] = inspect_image(task.edited_image, "edited_image")
        return task, _contents(pictures)

    def work(self, task: ScoreTask) -> float:
        return float((1 + len(task.source_images)) * (1 + task.more_asks))


def _contents(pictures: Mapping[str, SourceImage], loras: Contents = Contents()) -> Contents:
    hashes = {path: picture.sha256 for path, picture in pictures.items()}
    readings = tuple(p.reading for p in pictures.values() if p.reading)
    return replace(loras, pictures=hashes, readings=readings)


def _megapixel_steps(task: GenerateTask | EditTask) -> float:
    megapixels = (task.width or 1024) * (task.height or 1024) / 1e6
    return megapixels * (task.num_inference_steps or USUAL_STEPS)


def _fill(values: dict[str, Any], layer: Any, skipped: Sequence[str] = ()) -> None:
    for name in values:
        if values[name] is None and name not in skipped and name in type(layer).model_fields:
            values[name] = getattr(layer, name)


def _parse(kind: type[T], given: object, needed: str) -> T:
    names: list[str] = [f.name for f in fields(kind)]
    if isinstance(given, kind):
        given = vars(given)
    if not isinstance(given, Mapping):
        raise InputError(f"Expected a task with {_a(needed)}, found {shown(given)}.")
    # Real files leave fields empty where they mean "not set".
    data = {k: v for k, v in given.items() if v is not None and v != ""}
    data = {k: as_text(v) if isinstance(v, Path) else v for k, v in data.items()}
    if needed not in data:
        raise InputError(f"{needed}: is missing or empty{misspelt(data, [needed], names)}")
    try:
        task = cast(T, _VALIDATORS[kind].validate_python(data))
    except ValidationError as error:
        raise InputError(describe(error, [*names, *_OTHER_NAMES.get(kind, [])])) from None
    except RecursionError:
        raise InputError("The task is nested too deeply.") from None
    if not isinstance(task, ScoreTask) and task.loras:
        if task.lora_path:
            raise InputError(_TWO_WAYS)
        if task.lora_strength != 1:
            raise InputError(
                f"lora_strength: {task.lora_strength:g} is for lora_path; each of loras has a "
                "strength of its own."
            )
    return task


def _says(value: Any) -> bool:
    return is_set(value) and not is_empty(value)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
