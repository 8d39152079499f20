"""Any instruction-editing pipeline of diffusers: Qwen-Image-Edit, FLUX Kontext, FLUX.2, …"""

import inspect
import re
from collections.abc import Mapping
from math import sqrt
from typing import Any

import diffusers
from PIL import Image

from core.errors import InputError
from core.messages import Lease
from core.pictures.source_images import read_image, size_for
from core.tasks import EditTask, Task
from workers.models.diffusers_pipeline import DiffusersPipeline
from workers.models.family import FAMILIES
from workers.models.masked_editing import masked_arguments, masked_sister, read_mask

# In class names of pipelines that take a picture and a prompt, but no instruction.
_NO_EDITOR = re.compile(
    "Img2Img|Inpaint|Control|Fill|Refiner|Upscale|SuperResolution|Adapter|Depth2Img|Video|Layered"
)


class NativeImageEditor(DiffusersPipeline):
    """Changes pictures by instructions."""

    _masked: Any = None

    def check_pipeline(self, name: str, parameters: Mapping[str, inspect.Parameter]) -> None:
        if not {"image", "prompt"} <= set(parameters) or _NO_EDITOR.search(name):
            raise InputError(
                f"{self.spec.model_name} is a {name}, which edits nothing by instruction."
            )

    def arguments(self, lease: Lease) -> dict[str, Any]:
        task = lease.task
        assert isinstance(task, EditTask)
        images = [read_image(lease.at(p), lease.files.get(p)) for p in task.source_images]
        pipeline = self.pipeline_for(task)
        if self.family.set_area is not None:
            self.family.set_area(pipeline, task)
        elif task.working_area is not None and "output_resolution" not in self.parameters:
            images = [_at_area(image, task.working_area) for image in images]
        guided = {"true_cfg_scale": task.true_cfg_scale}
        if "true_cfg_scale" not in self.parameters and task.guidance_scale is None:
            # Pipelines with one kind of guidance call it guidance_scale.
            guided = {"guidance_scale": task.true_cfg_scale}
        return {
            "prompt": task.instruction,
            **self._pictures(task, images, lease),
            **self.taken(
                negative_prompt=task.negative_prompt,
                width=task.width,
                height=task.height,
                max_area=_area_of(task),
                num_inference_steps=task.num_inference_steps,
                guidance_scale=task.guidance_scale,
            ),
            # Qwen-Image-2.1's side of a square of that area, to which it brings its sources itself.
            **self.taken(output_resolution=task.working_area and round(sqrt(task.working_area))),
            # FLUX Kontext would take the nearest of its own sizes instead.
            **self.taken(_auto_resize=False if task.working_area is not None else None),
            **self.taken(**guided),
        }

    def pipeline_for(self, task: Task) -> Any:
        """The pipeline, or its sister for edits within a mask, which is made for the first one."""
        if getattr(task, "mask", None) is None:
            return self.pipeline
        if self._masked is None:
            self._masked = masked_sister(self.pipeline)
        return self._masked

    def _pictures(self, task: EditTask, images: list[Image.Image], lease: Lease) -> dict[str, Any]:
        """Pictures as arguments: a list where the pipeline takes several."""
        if task.mask is not None:
            mask = read_mask(lease.at(task.mask), lease.files.get(task.mask))
            return masked_arguments(self.pipeline_for(task), images, mask, self.parameters)
        if self.family.several_pictures:
            return {"image": images}
        if len(images) > 1:
            raise InputError(
                f"source_images: {self.pipeline_name} takes one picture, {len(images)} are given."
            )
        return {"image": images[0]}


def _at_area(image: Image.Image, area: int) -> Image.Image:
    """The picture at about `area` pixels."""
    size = size_for(image.width, image.height, area)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _area_of(task: EditTask) -> int | None:
    """Kontext's `max_area`: it brings width and height to it, so that they have to have it."""
    if task.width is not None and task.height is not None:
        return task.width * task.height
    return task.working_area


def preload() -> None:
    """Import the families, and the usual model's classes, which diffusers does when asked for."""
    FAMILIES.load()
    _ = diffusers.QwenImageEditPlusPipeline
