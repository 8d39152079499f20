"""Any pipeline of diffusers on one worker's device, driven by its signature."""

import gc
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from core.errors import InputError
from core.messages import Keep, Lease
from core.tasks import EditTask, GenerateTask, Task
from core.worker_spec import WorkerSpec
from workers.attention import choose_attention
from workers.compilation import Compilation, compilable, compiler_failed
from workers.lora_hotswap import HotswapLoras
from workers.lora_manager import LoraCounts, LoraManager, Loras
from workers.made_with import made_with
from workers.models.base import Log, ModelFamily, Picture, Product, model_settings
from workers.models.denoising_previews import DenoisingPreviews
from workers.models.family import Family, family_of
from workers.models.guidance import usual_guidance
from workers.models.loading import load_pipeline
from workers.models.prompt_limits import fit_clip_tokenizers
from workers.models.vae_tiles import VaeTiles
from workers.noise_schedule import StepNoise
from workers.pixels import quantise_on_device, to_image
from workers.previews import TellPreview
from workers.prompt_cache import PromptCache
from workers.prompt_cuts import PromptCuts, tokenizers_of
from workers.reproducible import make_reproducible
from workers.step_cache import StepCaching, refuse_unusable_cache
from workers.steps import TellSteps, count_steps
from workers.torch_device import (
    identity_of,
    prepare_torch,
    torch_device,
)


class DiffusersPipeline(ModelFamily):
    """Loads with `DiffusionPipeline.from_pretrained` and draws one picture at a time.

    Weights go straight to the device, in half precision on a GPU and float32 on a CPU, unless
    `dtype` says otherwise. Only safetensors weights are read.
    """

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        self.spec = spec
        self._log = log
        self._device = torch_device(spec)
        self.pipeline: Any = None
        self.family = Family()
        self._loras: Loras | None = None
        self._compilation: Compilation | None = None
        self._caching: StepCaching | None = None
        self._step_noise: StepNoise | None = None
        self._tell_compiling: Callable[[], None] = lambda: None
        self._tell_steps: TellSteps = lambda done, total: None
        self._tell_preview: TellPreview = lambda sketch: None
        self._previews: DenoisingPreviews | None = None
        self._prompts: PromptCache | None = None
        self._vae = VaeTiles(None)
        self.cuts = PromptCuts({})
        self.parameters: dict[str, inspect.Parameter] = {}
        prepare_torch(spec)

    def device_identity(self) -> tuple[str, str]:
        return identity_of(self._device, self.spec)

    def before_compiling(self, tell: Callable[[], None]) -> None:
        self._tell_compiling = tell

    def on_steps(self, tell: TellSteps) -> None:
        self._tell_steps = tell

    def on_previews(self, tell: TellPreview) -> None:
        self._tell_preview = tell

    def load(self) -> str:
        refuse_unusable_cache(self.spec)
        pipeline = load_pipeline(self.spec, self._device, self._log)
        count_steps(pipeline, lambda done, total: self._tell_steps(done, total))
        self.parameters = dict(inspect.signature(pipeline.__call__).parameters)
        name = type(pipeline).__name__
        self.check_pipeline(name, self.parameters)
        if self._device.type == "cpu":
            make_reproducible(pipeline)
        quantise_on_device(pipeline)
        self._vae = VaeTiles(getattr(pipeline, "vae", None))
        self.pipeline = pipeline
        self._step_noise = StepNoise(pipeline)
        self._previews = DenoisingPreviews(lambda sketch: self._tell_preview(sketch), self._log)
        self._caching = StepCaching(pipeline, self._denoiser, self.spec.step_cache)
        choose_attention(self._denoiser, self.spec.attention_backend, self._log)
        self._loras = LoraManager(pipeline, self.spec.max_resident_loras, self._log)
        compiling = compilable(self.spec, self._log)
        self._compilation = Compilation(self._denoiser, compiling, self._log)
        fit_clip_tokenizers(pipeline)
        # A prompt and a negative one may be remembered as one.
        self.cuts = PromptCuts(tokenizers_of(pipeline), 2 * self.spec.max_cached_prompts)
        self._prompts = PromptCache(pipeline, self.spec.max_cached_prompts)
        self.family = family_of(name)
        self.family.prepare(pipeline, self.cuts)
        return name

    @abstractmethod
    def check_pipeline(self, name: str, parameters: Mapping[str, inspect.Parameter]) -> None:
        """Raises InputError if the loaded pipeline does not do what this family is for."""

    @abstractmethod
    def arguments(self, lease: Lease) -> dict[str, Any]:
        """Keyword arguments of the pipeline for one picture, but for the generator."""

    def pipeline_for(self, task: Task) -> Any:
        """The pipeline that is called for a task."""
        del task
        return self.pipeline

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        texts = [_texts(lease) for lease in leases]
        self.cuts.expect(text for of_lease in texts for text in of_lease.values())
        products = self.draw_all(leases)
        return [
            replace(product, remarks=self._remarks(of_lease))
            for product, of_lease in zip(products, texts, strict=True)
        ]

    def _remarks(self, texts: dict[str, str]) -> tuple[str, ...]:
        """Remarks on where a task's texts are cut."""
        told = [self.cuts.of(text, what) for what, text in texts.items()]
        return tuple(sentence for sentence in told if sentence is not None)

    def draw_all(self, leases: Sequence[Lease]) -> list[Product]:
        """One product per lease."""
        return [Picture(*self.draw([lease], self.arguments(lease))[0]) for lease in leases]

    def draw(
        self, leases: Sequence[Lease], arguments: dict[str, Any]
    ) -> list[tuple[dict[str, Any], Image.Image]]:
        """One call of the pipeline: what was used, and the picture, of each lease.

        Args:
            leases: of the same LoRAs and strengths.
        """
        assert self._loras is not None and self._compilation is not None
        self._vae.begin()
        self._check_steps(arguments)
        if self._compilation.due:
            self._begin_compilation()
        self._loras.use_stack(leases[0].loras)
        output = self._call_or_give_up_compiling(leases, arguments)
        if any(getattr(output, "nsfw_content_detected", None) or ()):
            raise InputError(
                "The model's safety checker painted the picture black: it took it for unsafe. "
                "Another seed or prompt may pass."
            )
        images = [to_image(pixels) for pixels in output.images]
        return [(self._used(arguments, image), image) for image in images]

    def _call_or_give_up_compiling(self, leases: Sequence[Lease], arguments: dict[str, Any]) -> Any:
        assert self._compilation is not None
        try:
            with self._compilation.announced(self._tell_compiling):
                return self._call(leases, arguments)
        except Exception as error:
            if not (self._compilation.active and compiler_failed(error)):
                raise
            self._compilation.give_up(" ".join(str(error).split())[:300])
        # Outside of the except block, whose traceback kept the failed attempt's tensors alive.
        return self._call(leases, arguments)

    def _call(self, leases: Sequence[Lease], arguments: dict[str, Any]) -> Any:
        assert self._caching is not None and self._step_noise is not None
        assert self._previews is not None
        # Noise from the CPU's generator is the same on every device.
        generators = [torch.Generator("cpu").manual_seed(_seed(lease.task)) for lease in leases]
        one_or_all = generators if len(leases) > 1 else generators[0]
        takes_cfg = "true_cfg_scale" in self.parameters and "true_cfg_scale" not in arguments
        if takes_cfg and arguments.get("negative_prompt") is None:
            # The default of some, which has no effect then; they would warn of that each time.
            arguments = {**arguments, "true_cfg_scale": 1.0}
        guided = arguments.get("true_cfg_scale")
        if guided is not None and guided <= 1:  # what takes no part would be warned of each time
            arguments = {k: v for k, v in arguments.items() if k != "negative_prompt"}
        steps = self._own_steps or self._value(arguments, "num_inference_steps")
        self._step_noise.generator = one_or_all
        pipeline = self.pipeline_for(leases[0].task)
        with self._caching.fresh(steps), self._previews.of(leases, pipeline):
            return pipeline(generator=one_or_all, output_type="np", **arguments)

    @property
    def _own_steps(self) -> int | None:
        """How many steps a checkpoint has that comes with a schedule of fixed steps."""
        return len(self.pipeline.config.get("sample_sigmas") or ()) or None

    def _check_steps(self, arguments: Mapping[str, Any]) -> None:
        """Raises InputError for a number that the pipeline passes over, or cannot draw with."""
        own, asked = self._own_steps, arguments.get("num_inference_steps")
        if own is not None and asked not in (None, own):
            raise InputError(
                f"num_inference_steps: this checkpoint has a schedule of {own} steps of its own; "
                f"give {own}, or none (found {asked})."
            )
        scheduler = getattr(self.pipeline, "scheduler", None)
        ends_at = scheduler.config.get("shift_terminal") if scheduler is not None else None
        # Stretched to end at that noise, a schedule of one step is 0/0.
        stretches = bool(ends_at) and hasattr(scheduler, "stretch_shift_to_terminal")
        if stretches and (own or self._value(arguments, "num_inference_steps")) == 1:
            raise InputError(
                f"num_inference_steps: the schedule of this model (shift_terminal: {ends_at:g}) "
                "has no single step; give 2 or more (found 1)."
            )

    def _begin_compilation(self) -> None:
        """Compile from now on. LoRAs come by exchange: another adapter would compile all again."""
        assert self._loras is not None and self._compilation is not None
        if self._loras.resident:
            self.pipeline.unload_lora_weights()
        capacity = self.spec.max_resident_loras
        self._loras = HotswapLoras(self.pipeline, self._denoiser, capacity, self._device, self._log)
        self._compilation.begin()

    @property
    def _denoiser(self) -> Any:
        """The pipeline's transformer or UNet."""
        return getattr(self.pipeline, "transformer", None) or self.pipeline.unet

    def taken(self, **given: Any) -> dict[str, Any]:
        """Arguments that are set and that the pipeline's signature has."""
        return {k: v for k, v in given.items() if v is not None and k in self.parameters}

    @property
    def pipeline_name(self) -> str:
        return type(self.pipeline).__name__

    def resident_loras(self) -> list[str]:
        return self._loras.resident if self._loras else []

    def take_lora_counts(self) -> LoraCounts:
        return self._loras.take_counts() if self._loras else LoraCounts()

    def keep_lora(self, order: Keep) -> None:
        assert self._loras is not None and self._compilation is not None
        if self._compilation.due:  # which exchanges LoRAs, and knows nothing of those before
            self._begin_compilation()
        self._loras.obey(order)

    def too_many(self) -> None:
        if self._vae.short:
            self._vae.slice()
        self.empty_cache()

    def free_memory(self, failures: int = 1) -> str | None:
        """Free memory: at first what changes no picture; then, if the VAE lacked it, tiles."""
        if failures == 1:
            return f"trying again with {self._give_back()}"
        side = self._vae.cut()
        if side is None:
            return None
        self.empty_cache()
        return (
            f"trying again with the VAE in tiles of {side} x {side} pixels, as all larger pictures "
            "from now on; that changes their pixels a little"
        )

    def _give_back(self) -> str:
        """Return memory that nothing uses to the device; says in words what was given back."""
        dropped, kept = self._loras.shrink() if self._loras else (0, 0)
        if self._prompts:
            self._prompts.clear()
        self.empty_cache()
        if not dropped:
            return "what was cached given back"
        return f"{dropped} idle LoRAs dropped and at most {kept} kept from now on"

    def empty_cache(self) -> None:
        """Give memory that holds nothing back to the device."""
        # A failed picture leaves its components on the device, and the first one of the next try
        # would not fit beside them. Does nothing but in mode `offload`.
        self.pipeline.maybe_free_model_hooks()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _used(self, arguments: dict[str, Any], image: Image.Image) -> dict[str, Any]:
        name, _, model_hash = self.spec.model_identity.partition("#")
        scheduler = type(getattr(self.pipeline, "scheduler", None)).__name__
        used = {
            "model": name,
            "model_hash": model_hash or None,
            "pipeline": self.pipeline_name,
            "sampler": scheduler.removesuffix("Scheduler"),
            "num_inference_steps": self._own_steps or self._value(arguments, "num_inference_steps"),
            "guidance_scale": self._value(arguments, "guidance_scale"),
            # Left to its default it takes no part: that needs a negative prompt, too.
            "true_cfg_scale": arguments.get("true_cfg_scale"),
            "width": image.width,
            "height": image.height,
            "vae_tile": self._vae.side if self._vae.used else None,
            **model_settings(self.spec),
            "compiled": (self._compilation is not None and self._compilation.active) or None,
            **self._usual_guidance(arguments),
            **made_with(self._device, self.device_identity()[0]),
        }
        return {k: v for k, v in used.items() if v is not None}

    def _usual_guidance(self, arguments: dict[str, Any]) -> dict[str, float]:
        names = ("guidance_scale", "true_cfg_scale", "negative_prompt")
        taken = {name: self._value(arguments, name) for name in names}
        guided = getattr(self.pipeline, "do_classifier_free_guidance", True)
        return usual_guidance(self.pipeline_name, taken, guided is not False)

    def _value(self, arguments: Mapping[str, Any], name: str) -> Any:
        """The value that the pipeline took: our argument, or its own default."""
        if name not in self.parameters:
            return None
        return arguments.get(name, self.parameters[name].default)


def _texts(lease: Lease) -> dict[str, str]:
    """What a text encoder may get to see of a task, by what users call it."""
    task = lease.task
    assert isinstance(task, GenerateTask | EditTask)
    if isinstance(task, EditTask):
        texts = {"instruction": task.instruction}
    else:
        texts = {"prompt": task.prompt}
    texts["negative prompt"] = task.negative_prompt or ""
    return {what: text for what, text in texts.items() if text.strip()}


def _seed(task: Task) -> int:
    assert isinstance(task, GenerateTask | EditTask) and task.seed is not None
    return task.seed
