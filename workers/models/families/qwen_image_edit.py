"""Qwen-Image-Edit, -2509 and -2511: what diffusers and transformers do not settle themselves.

Their working resolution is a constant in diffusers:
`QwenImageEditPlusPipeline` encodes its sources at `VAE_IMAGE_SIZE` and shows them to the text
encoder at `CONDITION_IMAGE_SIZE`, both module constants; `QwenImageEditPipeline` resizes its
source to 1024 * 1024 in its own code, by its module's `calculate_dimensions`.

They encode an instruction however long it is, and their transformer breaks where its table of
positions ends.

And their text encoder is told which tokens are pictures: transformers 5 places tokens in three
dimensions, as the model was trained, only where it is, and diffusers does not pass that on.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from core.fields import MAX_SIDE
from core.pictures.source_images import size_for
from core.tasks import EditTask
from workers.models.family import FAMILIES, Family
from workers.prompt_cuts import PromptCuts


def set_working_resolution(pipeline: Any, task: EditTask) -> None:
    """Bring the task's areas to where the pipeline looks for them."""
    module: Any = sys.modules[type(pipeline).__module__]
    _dimensions()  # before its module loses it
    if hasattr(module, "VAE_IMAGE_SIZE"):
        module.VAE_IMAGE_SIZE = task.working_area or module.VAE_IMAGE_SIZE
        module.CONDITION_IMAGE_SIZE = task.condition_area or module.CONDITION_IMAGE_SIZE
        module.calculate_dimensions = partial(_encoded_size, task)
    elif task.working_area is not None:
        module.calculate_dimensions = partial(_source_size, task)


def prepare(pipeline: Any, cuts: PromptCuts) -> None:
    mark_pictures(pipeline.text_encoder)
    cut_at_positions(pipeline, cuts)


def mark_pictures(text_encoder: Any) -> None:
    """Add `mm_token_type_ids` to every call that comes with pictures and without them."""
    text_encoder.register_forward_pre_hook(_with_token_types, with_kwargs=True)


def cut_at_positions(pipeline: Any, cuts: PromptCuts) -> None:
    """Drop tokens for which the transformer has no positions, as Qwen-Image's pipeline does."""
    positions = pipeline.transformer.pos_embed.pos_freqs.shape[0]
    token = 2 * pipeline.vae_scale_factor  # pixels that a position of the transformer stands for
    room = positions - MAX_SIDE // token  # text follows the largest picture's half side
    encode = pipeline.encode_prompt

    def encoded(*args: Any, **given: Any) -> tuple[Any, Any]:
        embeddings, mask = encode(*args, **given)
        if embeddings.shape[1] > room:
            cuts.note_dropped_behind(room + pipeline.prompt_template_encode_start_idx)
            embeddings, mask = embeddings[:, :room], None if mask is None else mask[:, :room]
        return embeddings, mask

    pipeline.encode_prompt = encoded


def _with_token_types(
    text_encoder: Any, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shows_pictures = given.get("image_grid_thw") is not None
    if shows_pictures and given.get("mm_token_type_ids") is None:
        pictures = given["input_ids"] == text_encoder.config.image_token_id
        given = {**given, "mm_token_type_ids": pictures.int()}
    return args, given


@cache
def _dimensions() -> Callable[[int, float], tuple[float, float]]:
    """`calculate_dimensions` as diffusers has it."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    found: Callable[[int, float], tuple[float, float]] = module.calculate_dimensions
    return found


def _encoded_size(task: EditTask, area: int, ratio: float) -> tuple[int, int]:
    """`calculate_dimensions` of the Plus pipeline: a source is encoded at the result's own size.

    Both are rounded: at sizes that differ by a step the result would be shifted against its source.
    """
    drawn = (task.width, task.height)
    if area == task.working_area and size_for(ratio, 1.0, area) == drawn:
        return size_for(ratio, 1.0, area)
    width, height = _dimensions()(area, ratio)
    return int(width), int(height)


def _source_size(task: EditTask, area: int, ratio: float) -> tuple[int, int, None]:
    """`calculate_dimensions` of the first pipeline, whichever area it is asked for."""
    del area
    assert task.working_area is not None
    width, height = _encoded_size(task, task.working_area, ratio)
    return width, height, None


_ONE_PICTURE = Family(prepare=prepare, set_area=set_working_resolution)
FAMILIES.add("QwenImageEdit", _ONE_PICTURE)
FAMILIES.add("QwenImageEditPlus", replace(_ONE_PICTURE, several_pictures=True))
