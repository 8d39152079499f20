"""Which kernels compute a denoiser's attention, and what is done where they take no mask.

A mask hides what fills a shorter caption up to the longest of its batch. FlashAttention and
SageAttention take none: diffusers refuses the picture, or gives them a mask that they misread
(xformers adds True as 1.0; the `varlen` kinds count how many tokens a mask shows, and take as many
from the beginning). So where such a backend is chosen, Z-Image and Qwen-Image draw captions of
different length one after the other, which needs no mask and comes out the same; and a layer that
is given a mask all the same is computed with torch's own attention.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from core.errors import InputError
from workers.calls import put_in_front
from workers.models.base import Log
from workers.models.family import denoiser_of

_WITH_MASKS = {"native", "_native_cudnn", "_native_efficient", "_native_math", "flex"}


def choose_attention(denoiser: Any, backend: str, log: Log) -> None:
    """Set the attention backend of one denoiser alone, by diffusers' name.

    Args:
        backend: `auto` for diffusers' own choice, which the environment may change.

    Raises:
        InputError: diffusers does not know it, or cannot use it here or with this model.
    """
    usual, _ = _AttentionBackendRegistry.get_active_backend()
    if backend != "auto":
        _check_choice(denoiser, backend)
        try:
            denoiser.set_attention_backend(backend)
        except (AttributeError, ImportError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:500]
            raise InputError(f"workers.attention_backend: {backend!r}: {reason}") from None
        finally:
            # diffusers makes it the default of all models in this process.
            _AttentionBackendRegistry.set_active_backend(usual)
    name = usual.value if backend == "auto" else backend
    if name in _WITH_MASKS:
        return
    for processor in _processors(denoiser):
        _leave_masks_to_torch(processor)
    apart = denoiser_of(denoiser).apart
    if apart is not None:
        put_in_front(denoiser, apart)
    elsewhere = "captions of different length are drawn one after the other, and " if apart else ""
    log("INFO", f"Attention: {name} takes no masks; {elsewhere}layers with a mask use native.")


def _check_choice(denoiser: Any, backend: str) -> None:
    """Raises InputError where diffusers would do nothing, without a word."""
    if backend != "native" and not any(_processors(denoiser)):
        raise InputError(
            f"workers.attention_backend: {backend!r}: {type(denoiser).__name__} always computes "
            "attention in torch's own way; write auto."
        )


def _processors(denoiser: Any) -> Iterator[Any]:
    """What computes attention in its layers, where diffusers lets one choose how."""
    for module in denoiser.modules():
        processor = getattr(module, "processor", None)
        if hasattr(processor, "_attention_backend"):
            yield processor


# -- layers with a mask ------------------------------------------------------------------------


def _leave_masks_to_torch(processor: Any) -> None:
    """Change what this one object does when it is called with a mask."""
    if isinstance(processor, torch.nn.Module) or hasattr(processor, "for_masks"):
        return
    for_masks = copy.copy(processor)
    for_masks._attention_backend = AttentionBackendName.NATIVE
    processor.for_masks = for_masks
    kind: Any = type(processor)
    processor.__class__ = _aware_of_masks(kind)


@functools.cache
def _aware_of_masks(kind: Any) -> type:
    """A subclass of an attention processor; it keeps the signature, which diffusers looks at."""
    plain: Callable[..., Any] = kind.__call__
    names = list(inspect.signature(plain).parameters)[1:]

    @functools.wraps(plain)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
            if "mask" in name and value is not None and value is not False:
                return plain(self.for_masks, *args, **kwargs)
        return plain(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def as_the_last(part: Any, sample: Any) -> Any:
    """The whole result, in the form of a part's: a plain tuple, or diffusers' own."""
    return (sample,) if type(part) is tuple else type(part)(sample=sample)
