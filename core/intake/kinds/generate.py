"""Pictures from prompts."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from core.errors import InputError
from core.intake.picture_settings import USUAL_NAMES, named_fields
from core.intake.setting_values import is_empty, is_set
from core.intake.task_kinds import TWO_WAYS, Contents, TaskKind, fill, megapixel_steps, task_kind
from core.lora_stack import CheckedLora
from core.tasks import GenerateTask, Task, fields_of

# Those whose values have one form; LoRAs have as many as in a tweets file.
_PLAIN_FIELDS = set(GenerateTask.__dataclass_fields__) - {"loras"}
_GUIDANCE = ("guidance_scale", "cfg")  # two spellings of one setting: a layer sets one of them
# Small pictures leave a GPU half idle, so batches of them pay; from about 1024 x 1024 on they gain
# nothing. Captions of different length are the worker's affair: it alone has the tokenizer.
MOST_PIXELS = 512 * 512


@task_kind
class GenerateKind(TaskKind[GenerateTask]):
    """Pictures from prompts, whose fields may be written as other programs write them."""

    task = GenerateTask
    needed = "prompt"
    stem = "image"
    version = 3
    undeciding = ("seed_is_random",)
    other_names = tuple(USUAL_NAMES)

    def parse(self, given: Mapping[str, Any] | Task) -> GenerateTask:
        if isinstance(given, Mapping) and not given.keys() <= _PLAIN_FIELDS:
            if all(_says(given.get(name)) for name in ("loras", "lora_path")):
                raise InputError(TWO_WAYS)
            given = named_fields(given)
        task = super().parse(given)
        if task.guidance_scale is not None and task.cfg is not None:
            raise InputError("cfg: give either cfg or guidance_scale, not both.")
        return task

    def complete(self, task: GenerateTask) -> tuple[GenerateTask, Contents]:
        values = fields_of(task)
        for layer in self.layers:
            guided = any(values[name] is not None for name in _GUIDANCE)
            fill(values, layer, skipped=_GUIDANCE if guided else ())
        return self.with_files(GenerateTask(**values))

    def work(self, task: GenerateTask) -> float:
        """Megapixels x steps x forward passes per step."""
        guided = (task.cfg or 1.0) > 1.0 if task.cfg is not None else (task.guidance_scale or 0) > 0
        passes = 2 if guided else 1
        return megapixel_steps(task.width, task.height, task.num_inference_steps, passes)

    @classmethod
    def group_of(cls, task: GenerateTask, loras: Sequence[CheckedLora]) -> Hashable | None:
        """A key of small pictures that agree in all but prompt and seed."""
        if task.width is None or task.height is None or task.width * task.height > MOST_PIXELS:
            return None
        return (
            tuple((lora.sha256, lora.strength) for lora in loras),
            task.width,
            task.height,
            task.num_inference_steps,
            task.guidance_scale,
            task.cfg,
            task.negative_prompt is None,
        )


def _says(value: Any) -> bool:
    return is_set(value) and not is_empty(value)
