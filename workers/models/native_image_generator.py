"""Any text-to-image pipeline of diffusers."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from core.errors import InputError
from core.messages import Lease
from core.tasks import GenerateTask
from workers.models.diffusers_pipeline import DiffusersPipeline
from workers.models.guidance import guidance_arguments

# In class names of pipelines that change or follow a picture.
_STARTS_FROM_PICTURE = re.compile(
    "Img2Img|Inpaint|Edit|Control|Fill|Refiner|Layered|Upscale|SuperResolution|Adapter|Pix2Pix"
    "|Depth2Img|CycleDiffusion|Video"
)


class NativeImageGenerator(DiffusersPipeline):
    """Pictures from prompts: Z-Image, Qwen-Image, FLUX, SDXL, …"""

    def check_pipeline(self, name: str, parameters: Mapping[str, inspect.Parameter]) -> None:
        if not _draws_from_a_prompt(name, parameters):
            raise InputError(f"{self.spec.model} is a {name}, which draws nothing from a prompt.")

    def arguments(self, lease: Lease) -> dict[str, Any]:
        task = lease.task
        assert isinstance(task, GenerateTask)
        return {
            "prompt": task.prompt,
            **self.taken(
                negative_prompt=task.negative_prompt,
                width=task.width,
                height=task.height,
                num_inference_steps=task.num_inference_steps,
            ),
            **guidance_arguments(self.pipeline_name, self.parameters, task),
        }


def _draws_from_a_prompt(name: str, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Many pipelines need an image and still give their `image` argument the default None."""
    image = parameters.get("image")
    needs_image = image is not None and image.default is inspect.Parameter.empty
    if needs_image or "num_frames" in parameters or _STARTS_FROM_PICTURE.search(name):
        return False
    return "prompt" in parameters
