"""From what the user wrote to jobs that can run: validated, complete, fingerprinted.

One bad task becomes one `Rejected`; it never stops the others.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import InputError
from core.lora_files import LoraInspector, find_lora
from core.model_choice import ModelChoice
from core.outputs import OutputPath, OutputRoot
from core.settings import GenerationDefaults, Settings
from core.tasks import MAX_TASK_BYTES, GenerateTask
from core.validation import describe, shown

FINGERPRINT_VERSION = 1  # raise it when the same task comes to give other pixels
MAX_TASK_ID = 200  # characters
_TASK = TypeAdapter(GenerateTask)
_FIELDS = [f.name for f in fields(GenerateTask)]
_GUIDANCE = ("guidance_scale", "cfg")  # two spellings of one setting: a layer sets one of them


@dataclass(frozen=True)
class Job:
    """A task that can run: every setting resolved, its output safe, its LoRA checked."""

    position: int
    task: GenerateTask
    task_id: str
    output: OutputPath
    fingerprint: str
    lora_sha256: str | None
    work: float  # expected work: megapixels x steps x guidance passes


@dataclass(frozen=True)
class Rejected:
    """An input that cannot run, and why."""

    position: int
    task_id: str
    error: str
    output_path: str | None = None


TaskInput = Mapping[str, Any] | GenerateTask | InputError
"""What may stand for a task in a batch; an InputError is a task that its reader gave up on."""


class Admission:
    """Turns the inputs of one batch into jobs.

    Args:
        lora_folders: where relative LoRA paths are looked up, in this order.
        default_name: output path of a task that gives none, from its position.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelChoice,
        root: OutputRoot,
        lora_folders: Sequence[Path],
        default_name: Callable[[int], str],
        inspector: LoraInspector,
    ) -> None:
        self._settings = settings
        self._model = model
        self._root = root
        self._lora_folders = lora_folders
        self._default_name = default_name
        self._inspector = inspector
        self._layers = [settings.defaults, settings.defaults_for(model.path_or_id)]
        self._taken: dict[str, int] = {}

    def admit(self, position: int, given: TaskInput) -> Job | Rejected:
        """Check one input; `position` is its place in the batch."""
        try:
            return self._job(position, _validated(given))
        except InputError as error:
            return Rejected(position, _claimed_id(given, position), str(error))

    def _job(self, position: int, task: GenerateTask) -> Job:
        task = self._complete(position, task)
        output = self._root.place(task.output_path or "")
        lora_sha256 = None
        if task.lora_path is not None:
            file = find_lora(task.lora_path, self._lora_folders)
            lora_sha256 = self._inspector.sha256(file)
            task = replace(task, lora_path=str(file))
        _check_size(task)
        first = self._taken.setdefault(output.key, position)
        if first != position:
            raise InputError(
                f"output_path: {shown(task.output_path)} is also the output of task {first}; "
                "on some file systems names that differ only in case are one file."
            )
        return Job(
            position=position,
            task=task,
            task_id=task.task_id or output.file.stem,
            output=output,
            fingerprint=self._fingerprint(task, lora_sha256),
            lora_sha256=lora_sha256,
            work=expected_work(task),
        )

    def _complete(self, position: int, task: GenerateTask) -> GenerateTask:
        """Fill in what the task leaves open, from the settings, then the model's defaults."""
        if task.guidance_scale is not None and task.cfg is not None:
            raise InputError("cfg: give either cfg or guidance_scale, not both.")
        values = asdict(task)
        for layer in self._layers:
            _fill(values, layer)
        output_path = task.output_path or self._default_name(position)
        values["output_path"] = output_path
        values["task_id"] = task.task_id or Path(output_path).stem
        values["seed"] = self._settings.seed + position if task.seed is None else task.seed
        return GenerateTask(**values)

    def _fingerprint(self, task: GenerateTask, lora_sha256: str | None) -> str:
        """Hash of all that decides the pixels; where the files lie does not."""
        return fingerprint(task, lora_sha256, self._model.identity, self._settings.dtype)


def fingerprint(task: GenerateTask, lora_sha256: str | None, model: str, dtype: str) -> str:
    """Equal for tasks that give the same picture."""
    decides = asdict(task)
    for name in ("output_path", "task_id", "metadata", "lora_path"):
        del decides[name]
    if lora_sha256 is None:
        decides["lora_strength"] = None
    decides.update(lora=lora_sha256, model=model, dtype=dtype, version=FINGERPRINT_VERSION)
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def expected_work(task: GenerateTask) -> float:
    """Megapixels x steps x forward passes per step, with usual values where a field is open."""
    megapixels = (task.width or 1024) * (task.height or 1024) / 1e6
    guided = (task.cfg or 1.0) > 1.0 if task.cfg is not None else (task.guidance_scale or 0) > 0
    return megapixels * (task.num_inference_steps or 30) * (2 if guided else 1)


def _validated(given: TaskInput) -> GenerateTask:
    if isinstance(given, InputError):
        raise given
    if isinstance(given, GenerateTask):
        given = asdict(given)
    if not isinstance(given, Mapping):
        raise InputError(f"Expected a task with a prompt, found {shown(given)}.")
    # Real files leave fields empty where they mean "not set".
    data = {k: v for k, v in given.items() if v is not None and v != ""}
    if data.get("lora_path") is not None and isinstance(data["lora_path"], Path):
        data["lora_path"] = str(data["lora_path"])
    if isinstance(data.get("output_path"), Path):
        data["output_path"] = str(data["output_path"])
    if "prompt" not in data:
        raise InputError("prompt: is missing or empty.")
    try:
        task = _TASK.validate_python(data)
    except ValidationError as error:
        raise InputError(f"{describe(error, _FIELDS)}.") from None
    except RecursionError:
        raise InputError("The task is nested too deeply.") from None
    _check_task_id(task.task_id)
    return task


def _check_task_id(task_id: str | None) -> None:
    if task_id is not None and (len(task_id) > MAX_TASK_ID or not task_id.isprintable()):
        raise InputError(
            f"task_id: at most {MAX_TASK_ID} printable characters (found {shown(task_id)})."
        )


def _check_size(task: GenerateTask) -> None:
    try:
        size = len(json.dumps(asdict(task), allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise InputError("metadata: must be plain JSON values (no NaN, no objects).") from None
    if size > MAX_TASK_BYTES:
        raise InputError(
            f"The task takes {size} bytes with its prompt and metadata; the most is "
            f"{MAX_TASK_BYTES}."
        )


def _fill(values: dict[str, Any], layer: GenerationDefaults) -> None:
    guided = any(values[name] is not None for name in _GUIDANCE)
    for name in GenerationDefaults.model_fields:
        if values[name] is None and not (guided and name in _GUIDANCE):
            values[name] = getattr(layer, name)


def _claimed_id(given: TaskInput, position: int) -> str:
    """The id that an unusable input gives itself, if that much of it is usable."""
    claimed = (
        given.get("task_id") if isinstance(given, Mapping) else getattr(given, "task_id", None)
    )
    if isinstance(claimed, str) and claimed.isprintable() and 0 < len(claimed) <= MAX_TASK_ID:
        return claimed
    return f"task_{position:04d}"
