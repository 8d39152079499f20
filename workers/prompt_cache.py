"""Remembers what the text encoder made of a prompt: many tasks share one, or its negative."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from workers.models.family import family_of

_PLAIN = str | int | float | bool | torch.device | torch.dtype | None


class PromptCache:
    """Stands in front of a pipeline's prompt encoding, the least recently used out first.

    Only calls by words alone are remembered: what saw a picture is not. A text encoder with
    LoRA layers is always asked.
    """

    def __init__(self, pipeline: Any, capacity: int) -> None:
        self._pipeline = pipeline
        self._capacity = capacity
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        name = family_of(type(pipeline).__name__).encoder
        if capacity and hasattr(pipeline, name):
            setattr(pipeline, name, self._in_front_of(getattr(pipeline, name)))

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Give the memory back."""
        self._kept.clear()

    def _in_front_of(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(encode)

        def encoded(*args: Any, **kwargs: Any) -> Any:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()  # the pipeline's calls and ours differ in form alone
            key = None if self._has_adapters() else _key(call.args, call.kwargs)
            if key is None:
                return encode(*args, **kwargs)
            if key not in self._kept:
                self._kept[key] = encode(*args, **kwargs)
                if len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return _own_lists(self._kept[key])

        return encoded

    def _has_adapters(self) -> bool:
        encoders = (getattr(self._pipeline, f"text_encoder{n}", None) for n in ("", "_2", "_3"))
        return any(getattr(encoder, "peft_config", None) for encoder in encoders)


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
    """A key for a call by plain values; None for any other call."""
    parts: list[Hashable] = []
    for name, value in [*enumerate(args), *sorted(kwargs.items())]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = ("list", *value)
        elif not isinstance(value, _PLAIN):
            return None
        parts.append((name, value))
    return tuple(parts)


def _own_lists(result: Any) -> Any:
    """Copy lists of tensors, which the pipeline may change, but not the tensors."""
    if isinstance(result, tuple):
        return tuple(_own_lists(part) for part in result)
    return [_own_lists(part) for part in result] if isinstance(result, list) else result
