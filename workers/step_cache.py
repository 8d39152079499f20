"""Step caches of diffusers: what a denoiser leaves out in a step, it takes from the steps before.

diffusers holds what it takes in the hooks of a model's layers. Here it begins afresh with every
picture, however the one before ended; the passes of one step (prompt, negative prompt, captions
that are drawn apart) are kept apart by their order, because most pipelines do not name them.
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from diffusers import (
    CacheMixin,
    FirstBlockCacheConfig,
    MagCacheConfig,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import (
    HookRegistry,
    apply_first_block_cache,
    apply_mag_cache,
    apply_taylorseer_cache,
)

from core.errors import InputError
from core.memory_modes import FACTS
from core.settings import FirstBlockCache, MagCache, StepCache, TaylorSeerCache
from core.worker_spec import WorkerSpec
from workers.calls import Call, put_in_front
from workers.models.family import denoiser_of, family_of


def refuse_unusable_cache(spec: WorkerSpec) -> None:
    """Raises InputError where a step cache cannot go with how the model lies in memory."""
    if spec.step_cache is None:
        return
    cannot = ""
    if FACTS[spec.memory].held == "layers":
        cannot = f"memory: {spec.memory}, which moves layers as they run, one after the other"
    elif spec.device_count > 1:
        cannot = "gpus_per_worker above 1, as what is kept would lie on another GPU"
    if cannot:
        raise InputError(
            f"workers.step_cache: {spec.step_cache.kind} cannot be used with {cannot}; "
            "change one of the two."
        )


class StepCaching:
    """One pipeline's step cache; nothing at all where `cache` is None.

    Raises:
        InputError: diffusers cannot do this with the model.
    """

    def __init__(self, pipeline: Any, denoiser: Any, cache: StepCache | None) -> None:
        self._denoiser, self._cache = denoiser, cache
        self._mag: MagCacheConfig | None = None
        self._ratios: Any = None
        self._outer = ""  # what the pipeline calls the pass
        self._passes = 0  # since the newest step of the scheduler
        if cache is None:
            return
        self._check(type(denoiser).__name__, cache)
        self._apply(type(pipeline).__name__, cache)
        denoiser.cache_context = self._named
        put_in_front(denoiser, self._in_own_context)
        pipeline.scheduler.step = self._ending_a_step(pipeline.scheduler.step)

    def fresh(self, steps: int) -> AbstractContextManager[None]:
        """Reset the cache around the drawing of one picture, or of several together."""
        return nullcontext() if self._cache is None else self._fresh(steps)

    @contextmanager
    def _fresh(self, steps: int) -> Iterator[None]:
        if self._mag is not None:  # a new one fits the ratios to the number of steps
            vars(self._mag).update(vars(self._mag_config(steps)))
        self._reset()
        try:
            yield
        finally:
            self._reset()

    def _reset(self) -> None:
        registry = HookRegistry.check_if_exists_or_initialize(self._denoiser)
        registry.reset_stateful_hooks(recurse=True)
        self._passes = 0

    # -- at load -----------------------------------------------------------

    def _check(self, model: str, cache: StepCache) -> None:
        able = denoiser_of(self._denoiser).step_caches
        if cache.kind not in able:
            right = " or ".join(sorted(able | {"none"}))
            raise InputError(
                f"workers.step_cache: for {model} it must be {right} (found {cache.kind!r})."
            )

    def _apply(self, pipeline: str, cache: StepCache) -> None:
        denoiser_of(self._denoiser).before_caching()
        if isinstance(cache, FirstBlockCache):
            apply_first_block_cache(self._denoiser, FirstBlockCacheConfig(cache.threshold))
        elif isinstance(cache, TaylorSeerCache):
            half = self._denoiser.dtype != torch.float32
            config = TaylorSeerCacheConfig(
                **cache.model_dump(),
                taylor_factors_dtype=torch.bfloat16 if half else torch.float32,
            )
            apply_taylorseer_cache(self._denoiser, config)
        elif isinstance(cache, MagCache):
            self._ratios = cache.mag_ratios or family_of(pipeline).mag_ratios
            if self._ratios is None:
                raise InputError(
                    f"workers.mag_cache.mag_ratios: {pipeline} needs ratios of its own model; "
                    "docs/SPEED.md says how to measure them."
                )
            self._mag = self._mag_config(len(self._ratios))
            apply_mag_cache(self._denoiser, self._mag)

    def _mag_config(self, steps: int) -> MagCacheConfig:
        assert isinstance(self._cache, MagCache)
        given = {**self._cache.model_dump(), "mag_ratios": torch.as_tensor(self._ratios)}
        return MagCacheConfig(**given, num_inference_steps=steps)

    # -- passes ------------------------------------------------------------

    @contextmanager
    def _named(self, name: str, **where: Any) -> Iterator[None]:
        """Stands in for the denoiser's `cache_context`, which pipelines call."""
        del where
        self._outer = name
        try:
            yield
        finally:
            self._outer = ""

    def _ending_a_step(self, step: Call) -> Call:
        """The scheduler's step, behind which passes are counted anew.

        The time of a pass would tell steps apart, too, but to read it is to wait for the device.
        """

        @functools.wraps(step)  # pipelines look at its signature
        def stepped(*args: Any, **given: Any) -> Any:
            self._passes = 0
            return step(*args, **given)

        return stepped

    def _in_own_context(self, forward: Call) -> Call:
        """The denoiser's forward pass, with what belongs to one of a step's passes."""

        @functools.wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._passes += 1
            with CacheMixin.cache_context(self._denoiser, f"{self._outer} {self._passes}"):
                return forward(*args, **kwargs)

        return call
