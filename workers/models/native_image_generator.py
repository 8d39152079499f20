"""Any text-to-image pipeline of diffusers."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch

from core.errors import InputError
from core.messages import Lease
from core.tasks import GenerateTask
from core.worker_spec import WorkerSpec
from workers.batch_limit import BatchLimit
from workers.models.base import Log, Picture, Product
from workers.models.diffusers_pipeline import DiffusersPipeline
from workers.models.family import FAMILIES
from workers.models.guidance import guidance_arguments
from workers.torch_device import torch_devices

# In class names of pipelines that change or follow a picture.
_STARTS_FROM_PICTURE = re.compile(
    "Img2Img|Inpaint|Edit|Control|Fill|Refiner|Layered|Upscale|SuperResolution|Adapter|Pix2Pix"
    "|Depth2Img|CycleDiffusion|Video"
)


Encoded = dict[str, list[torch.Tensor]]  # by lease: prompt, negative prompt; [tokens, width] each


class NativeImageGenerator(DiffusersPipeline):
    """Draws pictures from prompts: Z-Image, Qwen-Image, FLUX, SDXL, …"""

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        super().__init__(spec, log)
        self._limit = BatchLimit(torch_devices(spec))

    def check_pipeline(self, name: str, parameters: Mapping[str, inspect.Parameter]) -> None:
        if not _draws_from_a_prompt(name, parameters):
            raise InputError(
                f"{self.spec.model_name} is a {name}, which draws nothing from a prompt."
            )

    def draw_all(self, leases: Sequence[Lease]) -> list[Product]:
        """Draw leases that come together: they agree in all but prompt and seed."""
        drawn: dict[str, Product] = {}
        encoded = self._encoded(leases) if len(leases) > 1 else {}
        for group in _of_like_captions(leases, encoded, self.family.caption_bucket):
            while group:
                task = _task_of(group[0])
                pixels = (task.width or 1) * (task.height or 1)
                chunk = group[: self._limit.pictures(pixels)]
                group = group[len(chunk) :]
                self._limit.begin(len(chunk))
                together = len(chunk) > 1
                pictures = self._together(chunk, encoded) if together else super().draw_all(chunk)
                self._limit.end(pixels)
                drawn |= {a.lease_id: p for a, p in zip(chunk, pictures, strict=True)}
        return [drawn[lease.lease_id] for lease in leases]

    def too_many(self) -> None:
        super().too_many()
        self._limit.out_of_memory()

    def _encoded(self, leases: Sequence[Lease]) -> Encoded:
        """Encode prompts beforehand, for families that give each a tensor of its own length."""
        encode_alone = self.family.encode_alone
        if encode_alone is None:
            return {}
        encoded = {}
        for lease in leases:
            arguments = self.arguments(lease)
            texts = [arguments["prompt"]]
            if self._value(arguments, "guidance_scale") > 0:
                texts.append(arguments.get("negative_prompt") or "")
            encoded[lease.lease_id] = [
                encode_alone(self.pipeline, text, self._device) for text in texts
            ]
        return encoded

    def _together(self, leases: Sequence[Lease], encoded: Encoded) -> list[Product]:
        """Draw several pictures in one call."""
        each = [self.arguments(lease) for lease in leases]
        arguments = dict(each[0])
        for name in ("prompt", "negative_prompt"):
            if name in arguments:
                arguments[name] = [own[name] for own in each]
        if encoded:
            embeddings = zip(*(encoded[lease.lease_id] for lease in leases), strict=True)
            names = ("prompt_embeds", "negative_prompt_embeds")  # the second where guidance asks
            arguments |= {k: list(texts) for k, texts in zip(names, embeddings, strict=False)}
            arguments |= {"prompt": None, "negative_prompt": None}
        return [
            Picture({**used, "pictures_at_once": len(leases)}, image)
            for used, image in self.draw(leases, arguments)
        ]

    def arguments(self, lease: Lease) -> dict[str, Any]:
        task = lease.task
        assert isinstance(task, GenerateTask)
        self.family.check_size(self.pipeline, task.width or 0, task.height or 0)
        return {
            "prompt": task.prompt,
            **self.taken(
                negative_prompt=task.negative_prompt,
                width=task.width,
                height=task.height,
                num_inference_steps=task.num_inference_steps,
            ),
            **self.taken(**self.family.sequence_length(self.pipeline)),
            **guidance_arguments(self.pipeline_name, self.parameters, task),
        }


def _task_of(lease: Lease) -> GenerateTask:
    assert isinstance(lease.task, GenerateTask)
    return lease.task


def _of_like_captions(leases: Sequence[Lease], encoded: Encoded, bucket: int) -> list[list[Lease]]:
    """Group leases so that no caption is filled up further than it would be alone."""
    groups: dict[tuple[int, ...], list[Lease]] = {}
    for lease in leases:
        texts = encoded.get(lease.lease_id, [])
        buckets = tuple(-(-len(text) // bucket) for text in texts)
        groups.setdefault(buckets, []).append(lease)
    return list(groups.values())


def _draws_from_a_prompt(name: str, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a pipeline draws from a prompt alone; that `image` may be None proves nothing."""
    image = parameters.get("image")
    needs_image = image is not None and image.default is inspect.Parameter.empty
    if needs_image or "num_frames" in parameters or _STARTS_FROM_PICTURE.search(name):
        return False
    return "prompt" in parameters


def preload() -> None:
    """Import the families, and the usual model's classes, which diffusers does when asked for."""
    FAMILIES.load()
    _ = diffusers.ZImagePipeline
