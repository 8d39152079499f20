"""From the parameters of a request to the tasks of its job: one a picture."""

from collections.abc import Callable, Sequence
from typing import Any

from apps.openai_images.errors import bad_value
from apps.openai_images.parameters import AUTO, EditParameters, ImageParameters
from apps.openai_images.rules import ImagesSection
from core.seeds import RANDOM, random_seed, seed_of_task

Place = Callable[[int], tuple[str, str]]
"""Name and output path of a picture, by its place in its request."""


def check_together(asked: ImageParameters, rules: ImagesSection) -> None:
    """Refuse parameters that exclude each other, or that this server's settings exclude.

    Raises:
        ApiError: 400.
    """
    if asked.sides is not None and asked.sides[0] * asked.sides[1] > rules.max_pixels:
        message = (
            f"Invalid value for 'size': {asked.size} has more than the {rules.max_pixels} pixels "
            "that this server draws."
        )
        raise bad_value("size", message)
    if asked.output_format == "png" and asked.output_compression != 100:
        message = "Invalid value for 'output_compression': png is lossless; use webp or jpeg."
        raise bad_value("output_compression", message)
    if asked.partial_images and not asked.stream:
        message = "Invalid value for 'partial_images': they come in a stream; set 'stream' to true."
        raise bad_value("partial_images", message)
    if asked.stream and asked.response_format == "url":
        message = "Invalid value for 'response_format': a stream has 'b64_json' alone."
        raise bad_value("response_format", message)
    guided_twice = asked.guidance_scale is not None and asked.true_cfg_scale is not None
    if guided_twice and not isinstance(asked, EditParameters):
        message = "Give either 'guidance_scale' or 'true_cfg_scale', not both."
        raise bad_value("true_cfg_scale", message)
    steps_of(asked, rules)


def steps_of(asked: ImageParameters, rules: ImagesSection) -> int | None:
    """The denoising steps that are asked for, outright or as a quality; None for the model's own.

    Raises:
        ApiError: 400: a quality that the settings give no meaning.
    """
    if asked.quality == AUTO:
        return asked.num_inference_steps
    edits = isinstance(asked, EditParameters)
    known = rules.quality.edits if edits else rules.quality.generations
    if asked.quality not in known:
        values = ", ".join(f"'{name}'" for name in (AUTO, *known))
        message = (
            f"Invalid value for 'quality': '{asked.quality}'. Supported values are: {values}. "
            "'num_inference_steps' asks for steps outright."
        )
        raise bad_value("quality", message)
    if asked.num_inference_steps is not None:
        message = "Give either 'quality' or 'num_inference_steps', not both."
        raise bad_value("num_inference_steps", message)
    return known[asked.quality]


def tasks_for(
    asked: ImageParameters,
    place: Place,
    steps: int | None,
    loras: Sequence[str],
    sources: Sequence[str] = (),
    first_seed: int | None = None,
    mask: str | None = None,
) -> tuple[dict[str, Any], ...]:
    """A task for each picture, for the engine.

    Args:
        loras: paths of the LoRAs, in the order in which they are asked for.
        sources: pictures that are to be changed; none where one is to be drawn.
        first_seed: of the first picture, where the request leaves it to chance; by default one
            at random.
        mask: of the first source.
    """
    width, height = asked.sides or (None, None)
    stack = [
        {"path": path, "strength": lora.strength}
        for path, lora in zip(loras, asked.loras, strict=True)
    ]
    task: dict[str, Any] = {
        "negative_prompt": asked.negative_prompt,
        "width": width,
        "height": height,
        "num_inference_steps": steps,
        "guidance_scale": asked.guidance_scale,
        "loras": stack or None,
    }
    if sources:
        task |= {"kind": "edit", "instruction": asked.prompt, "source_images": list(sources)}
        task |= {"true_cfg_scale": asked.true_cfg_scale, "mask": mask}
    else:
        task |= {"kind": "generate", "prompt": asked.prompt, "cfg": asked.true_cfg_scale}
    said = {name: value for name, value in task.items() if value is not None}
    first = asked.seed
    if first is None or first == RANDOM:
        first = random_seed() if first_seed is None else first_seed
    tasks = []
    for position in range(asked.n):
        name, output_path = place(position)
        seed = seed_of_task(first, position)
        tasks.append({**said, "seed": seed, "task_id": name, "output_path": output_path})
    return tuple(tasks)
