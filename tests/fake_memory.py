"""Peak memory of models without memory: torch's fake tensors have shapes and no data."""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and not gone again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most: int = 0
        self._now: int = 0
        self._live: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key, size = id(storage), int(storage.nbytes())
            if key in self._live or key in given:  # a view, or changed in place
                continue
            self._live[key] = weakref.ref(storage, partial(self._gone, key, size))
            self._now += size
            self.most = max(self.most, self._now)
        return result

    def _gone(self, key: int, size: int, _: object) -> None:
        del self._live[key]
        self._now -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def peak_bytes(build: Callable[[], Any], runs: Sequence[Callable[[Any], Any]]) -> list[int]:
    """Bytes that each of `runs` needs for a model in bfloat16, beside the model."""
    before = torch.get_default_dtype()
    with FakeTensorMode(), torch.no_grad():
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = build()
        finally:
            torch.set_default_dtype(before)
        return [_peak(run, model) for run in runs]


def _peak(run: Callable[[Any], Any], model: Any) -> int:
    with _Peak() as peak:
        run(model)
    return int(peak.most)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.bfloat16)
