"""Translates a task's guidance into a pipeline's arguments.

`guidance_scale` goes through unchanged: it already is in the pipeline's own meaning. `cfg` is
ComfyUI's, uncond + cfg * (cond - uncond), so 1.0 means none. Pipelines differ:

- those of `offset` guidance (Z-Image, Krea 2, Cosmos 2) compute cond + g * (cond - uncond), the
  same as ComfyUI's with g = cfg - 1; they run the second pass only if g > 0 (Cosmos: if g > 1);
- pipelines with a `true_cfg_scale` argument (Qwen-Image, FLUX) use their `guidance_scale` for
  something else, an input of a distilled model; they guide only with a negative prompt;
- FLUX.2 and SANA-Sprint are distilled: their `guidance_scale` is an input of the model, and
  there is no second pass to ask for;
- all others use ComfyUI's formula.
"""

from collections.abc import Collection, Mapping
from typing import Any

from core.errors import InputError
from core.tasks import GenerateTask
from workers.models.family import family_of


def guidance_arguments(
    pipeline_class: str, parameters: Collection[str], task: GenerateTask
) -> dict[str, Any]:
    """Keyword arguments for `pipeline(...)`.

    Args:
        parameters: names that the pipeline's `__call__` takes.

    Raises:
        InputError: `cfg` above 1.0 for a pipeline that cannot guide.
    """
    if task.cfg is None:
        if task.guidance_scale is None or "guidance_scale" not in parameters:
            return {}
        return {"guidance_scale": task.guidance_scale}
    if family_of(pipeline_class).guidance == "offset":
        return {"guidance_scale": max(0.0, task.cfg - 1.0)}
    if family_of(pipeline_class).guidance == "distilled":
        if task.cfg > 1.0:
            raise InputError(f"cfg: {pipeline_class} is distilled and runs without; use 1.0.")
        return {}
    if "true_cfg_scale" in parameters:
        negative = {"negative_prompt": task.negative_prompt or " "} if task.cfg > 1.0 else {}
        return {"true_cfg_scale": task.cfg, **negative}
    return {"guidance_scale": task.cfg} if "guidance_scale" in parameters else {}


def usual_guidance(
    pipeline_class: str, taken: Mapping[str, Any], guided: bool = True
) -> dict[str, float]:
    """A call's guidance as AUTOMATIC1111 and ComfyUI mean it, whatever the pipeline calls it.

    Args:
        taken: what the pipeline took of `guidance_scale`, `true_cfg_scale` and
            `negative_prompt`, its own defaults included; without those that it does not have.
        guided: False if the pipeline says of itself that it did without.

    Returns:
        `cfg` (1.0 = none), and `distilled_cfg`, which Forge calls "Distilled CFG Scale", for
        models that take guidance as an input; nothing for a pipeline without guidance.
    """
    scale, true_scale = taken.get("guidance_scale"), taken.get("true_cfg_scale")
    if true_scale is not None or family_of(pipeline_class).guidance == "distilled":
        cfg = true_scale if true_scale and taken.get("negative_prompt") is not None else 1.0
        distilled = {} if scale is None else {"distilled_cfg": float(scale)}
        return {"cfg": max(1.0, float(cfg)), **distilled}
    if scale is None:
        return {}
    cfg = scale + 1 if family_of(pipeline_class).guidance == "offset" else scale
    return {"cfg": max(1.0, float(cfg)) if guided else 1.0}
