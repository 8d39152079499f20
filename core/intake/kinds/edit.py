"""Pictures changed by instructions."""

from collections.abc import Mapping
from typing import Any

from core.errors import InputError
from core.intake.edit_fields import USUAL_NAMES, read_edit
from core.intake.task_kinds import Contents, TaskKind, fill, megapixel_steps, task_kind
from core.pictures.source_images import SourceImage, size_for
from core.tasks import EditTask, Task, fields_of

MASK_TOLERANCE = 0.01  # of its height: sizes are rounded when pictures are made smaller


@task_kind
class EditKind(TaskKind[EditTask]):
    """Edits of pictures, whose fields may be written as other programs write them.

    Without a size, they get the first source's aspect ratio.
    """

    task = EditTask
    needed = "instruction"
    signs = ("instruction", "source_images")
    version = 3
    other_names = tuple(USUAL_NAMES)

    def parse(self, given: Mapping[str, Any] | Task) -> EditTask:
        return super().parse(read_edit(given) if isinstance(given, Mapping) else given)

    def complete(self, task: EditTask) -> tuple[EditTask, Contents]:
        values = fields_of(task)
        for layer in self.layers:
            own_lora = getattr(layer, "lora_path", None)
            if not task.loras and values["lora_path"] is None and own_lora is not None:
                # The task's strength is of a LoRA that it does not have.
                strength = getattr(layer, "lora_strength", None)
                values["lora_strength"] = 1.0 if strength is None else strength
            fill(values, layer, skipped=("lora_path",) if task.loras else ())
        pictures = self.pictures_of(task)
        _check_mask(task, pictures)
        area = values["working_area"]
        if area is not None and values["width"] is None and values["height"] is None:
            first = pictures[task.source_images[0]]
            values["width"], values["height"] = size_for(first.width, first.height, area)
        return self.with_files(EditTask(**values), pictures)

    def work(self, task: EditTask) -> float:
        """Megapixels x steps x passes x pictures that attention sees."""
        guided = (task.true_cfg_scale or 1.0) > 1.0 and task.negative_prompt is not None
        pictures = 1 + len(task.source_images)
        drawn = megapixel_steps(task.width, task.height, task.num_inference_steps)
        return drawn * (2 if guided else 1) * pictures


def _check_mask(task: EditTask, pictures: Mapping[str, SourceImage]) -> None:
    """Refuse a mask that cannot lie on the picture.

    Raises:
        InputError: its aspect ratio is another one.
    """
    if task.mask is None:
        return
    mask, first = pictures[task.mask], pictures[task.source_images[0]]
    wanted = mask.width * first.height / first.width  # its height, if it has the same ratio
    if abs(mask.height - wanted) > max(1.0, MASK_TOLERANCE * wanted):
        raise InputError(
            f"mask: {task.mask} has {mask.width} x {mask.height} pixels and the picture "
            f"{first.width} x {first.height}; the mask needs the picture's aspect ratio."
        )
