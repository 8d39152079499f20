"""Any text-to-image pipeline of diffusers, driven by its signature."""

import gc
import inspect
import platform
import re
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from core.errors import InputError, MultiGPUError
from core.messages import Lease
from core.tasks import GenerateTask
from core.worker_spec import WorkerSpec
from workers.lora_manager import LoraCounts, LoraManager
from workers.models.base import Log, ModelFamily, Picture
from workers.models.guidance import guidance_arguments
from workers.reproducible import make_reproducible

# In class names of pipelines that change or follow a picture.
_STARTS_FROM_PICTURE = re.compile(
    "Img2Img|Inpaint|Edit|Control|Fill|Refiner|Layered|Upscale|SuperResolution|Adapter|Pix2Pix"
    "|Depth2Img|CycleDiffusion|Video"
)
PASSED_THROUGH = ("negative_prompt", "width", "height", "num_inference_steps")


class NativeImageGenerator(ModelFamily):
    """Loads with `DiffusionPipeline.from_pretrained`: Z-Image, Qwen-Image, FLUX, SDXL, …

    Weights go straight to the device in bfloat16 on a GPU and float32 on a CPU, unless
    `dtype` says otherwise. Only safetensors weights are read.
    """

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        self._spec = spec
        self._log = log
        self._device = torch.device("cuda:0" if spec.device == "cuda" else "cpu")
        self._pipeline: Any = None
        self._loras: LoraManager | None = None
        self._parameters: dict[str, inspect.Parameter] = {}
        torch.set_num_threads(spec.threads)
        torch.set_grad_enabled(False)
        for library in (diffusers_logging, transformers_logging):
            library.disable_progress_bar()
            library.set_verbosity_error()

    def device_identity(self) -> tuple[str, str]:
        if self._device.type == "cuda":
            properties = torch.cuda.get_device_properties(self._device)
            return properties.name, str(getattr(properties, "uuid", "unknown"))
        return platform.processor() or platform.machine(), self._spec.name

    def load(self) -> str:
        pipeline = DiffusionPipeline.from_pretrained(
            self._spec.model,
            revision=self._spec.revision,
            dtype=self._dtype(),
            use_safetensors=True,
            device_map=self._device.type,  # straight there, without a copy in host memory
        )
        pipeline.set_progress_bar_config(disable=True)
        self._parameters = dict(inspect.signature(pipeline.__call__).parameters)
        name = type(pipeline).__name__
        if not _draws_from_a_prompt(name, self._parameters):
            raise InputError(f"{self._spec.model} is a {name}, which draws nothing from a prompt.")
        if self._device.type == "cpu":
            make_reproducible(pipeline)
        self._pipeline = pipeline
        self._loras = LoraManager(pipeline, self._spec.max_resident_loras, self._log)
        return name

    def generate(self, lease: Lease) -> Picture:
        task = lease.task
        assert self._loras is not None and task.seed is not None
        self._loras.use(lease.lora_sha256, task.lora_path, task.lora_strength)
        arguments = self._arguments(task)
        # Noise from the CPU's generator is the same on every device.
        generator = torch.Generator("cpu").manual_seed(task.seed)
        output = self._pipeline(
            prompt=task.prompt, generator=generator, output_type="np", **arguments
        )
        image = _to_image(output.images[0])
        return Picture(image, self._used(arguments, image))

    def resident_loras(self) -> list[str]:
        return self._loras.resident if self._loras else []

    def take_lora_counts(self) -> LoraCounts:
        return self._loras.take_counts() if self._loras else LoraCounts()

    def free_memory(self) -> str:
        dropped = self._loras.shrink() if self._loras else 0
        vae = getattr(self._pipeline, "vae", None)
        tiled = vae is not None and hasattr(vae, "enable_tiling")
        if vae is not None and tiled:
            vae.enable_tiling()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        tiling = ", decoding in tiles from now on" if tiled else ""
        return f"trying again with {dropped} idle LoRAs dropped{tiling}"

    def _dtype(self) -> torch.dtype:
        if self._spec.dtype == "auto":
            return torch.bfloat16 if self._device.type == "cuda" else torch.float32
        return {
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "float32": torch.float32,
        }[self._spec.dtype]

    def _arguments(self, task: GenerateTask) -> dict[str, Any]:
        """What the pipeline's signature takes of what the task says."""
        given = {name: getattr(task, name) for name in PASSED_THROUGH}
        arguments = {k: v for k, v in given.items() if v is not None and k in self._parameters}
        name = type(self._pipeline).__name__
        return {**arguments, **guidance_arguments(name, self._parameters, task)}

    def _used(self, arguments: dict[str, Any], image: Image.Image) -> dict[str, Any]:
        name, _, model_hash = self._spec.model_identity.partition("#")
        scheduler = type(getattr(self._pipeline, "scheduler", None)).__name__
        used = {
            "model": name,
            "model_hash": model_hash or None,
            "pipeline": type(self._pipeline).__name__,
            "sampler": scheduler.removesuffix("Scheduler"),
            "num_inference_steps": self._value(arguments, "num_inference_steps"),
            "guidance_scale": self._value(arguments, "guidance_scale"),
            # Left to its default it takes no part: that needs a negative prompt, too.
            "true_cfg_scale": arguments.get("true_cfg_scale"),
            "width": image.width,
            "height": image.height,
        }
        return {k: v for k, v in used.items() if v is not None}

    def _value(self, arguments: dict[str, Any], name: str) -> Any:
        """What the pipeline took: our argument, or its own default."""
        if name not in self._parameters:
            return None
        return arguments.get(name, self._parameters[name].default)


def _draws_from_a_prompt(name: str, parameters: dict[str, inspect.Parameter]) -> bool:
    """Many pipelines need an image and still give their `image` argument the default None."""
    image = parameters.get("image")
    needs_image = image is not None and image.default is inspect.Parameter.empty
    if needs_image or "num_frames" in parameters or _STARTS_FROM_PICTURE.search(name):
        return False
    return "prompt" in parameters


def _to_image(pixels: Any) -> Image.Image:
    """[height, width, 3] floats in 0..1 to 8 bits, as diffusers' own output_type="pil" does.

    Raises:
        MultiGPUError: the numbers are not finite; diffusers would have drawn them black.
    """
    if not np.isfinite(pixels).all():
        raise MultiGPUError("The model computed NaN instead of a picture; try dtype float32.")
    return Image.fromarray((pixels * 255).round().astype("uint8"))
