"""Qwen-Image-Edit, -2509 and -2511: their working resolution is a constant in diffusers.

`QwenImageEditPlusPipeline` encodes its sources at `VAE_IMAGE_SIZE` and shows them to the text
encoder at `CONDITION_IMAGE_SIZE`, both module constants; `QwenImageEditPipeline` resizes its
source to 1024 * 1024 in its own code, by its module's `calculate_dimensions`.
"""

import sys
from typing import Any

from core.tasks import EditTask

PREFIX = "QwenImageEdit"  # of the pipelines' class names


def set_working_resolution(pipeline: Any, task: EditTask) -> None:
    """Bring the task's areas to where the pipeline looks for them."""
    module: Any = sys.modules[type(pipeline).__module__]
    if hasattr(module, "VAE_IMAGE_SIZE"):
        module.VAE_IMAGE_SIZE = task.working_area or module.VAE_IMAGE_SIZE
        module.CONDITION_IMAGE_SIZE = task.condition_area or module.CONDITION_IMAGE_SIZE
    elif task.working_area is not None:
        module.calculate_dimensions = _always(task.working_area)


def _always(area: int) -> Any:
    """`calculate_dimensions` of one area, whichever it is asked for."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    def at_area(target_area: int, ratio: float) -> tuple[int, int, None]:
        width, height = calculate_dimensions(area, ratio)
        return int(width), int(height), None

    return at_area
