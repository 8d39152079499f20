"""Pictures changed by instructions."""

from core.intake.task_kinds import Contents, TaskKind, fill, megapixel_steps, task_kind
from core.pictures.source_images import size_for
from core.tasks import EditTask, fields_of


@task_kind
class EditKind(TaskKind[EditTask]):
    """Edits of pictures. Without a size, they get the first source's aspect ratio."""

    task = EditTask
    needed = "instruction"
    signs = ("instruction", "source_images")
    version = 3

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
