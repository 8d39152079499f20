"""GPUs that compute on the CPU, and as CUDA does refuse to compute with tensors of two of them.

Inside `PretendGpus()` a tensor may be put on cuda:0, cuda:1, …, and says so; its numbers are those
of the CPU.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
_DEVICE = torch.Tensor.device.__get__
_IS_CUDA = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]
_MOVES = (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu)
# Tensors of the CPU may choose among, or be copied to, those of a GPU.
_MIXES = (
    *(torch.Tensor.__getitem__, torch.Tensor.__setitem__, torch.Tensor.copy_),
    *(torch.Tensor.data.__set__, torch._has_compatible_shallow_copy_type),  # type: ignore[attr-defined]
)


def device_of(tensor: torch.Tensor) -> torch.device:
    """Where it pretends to be."""
    if tensor.is_meta:
        return torch.device("meta")
    found: torch.device = getattr(tensor.untyped_storage(), "pretended", CPU)
    return found


class PretendGpus(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func == _DEVICE:
            return device_of(args[0])
        if func == _IS_CUDA:
            return device_of(args[0]).type == "cuda"
        if func in _MOVES:
            return _moved(func, args, given)
        alone = len(args) == 1 and not given and isinstance(args[0], torch.Tensor)
        if alone or func in _MIXES:
            at = device_of(args[0])
        else:
            at = _common(func, _tensors((args, given)))
        if given.get("device") is not None:
            asked = _device(given["device"])
            at, given["device"] = asked, CPU if asked.type == "cuda" else asked
        result = func(*args, **given)
        _mark(_tensors(result), at)
        return result


def _moved(func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> torch.Tensor:
    tensor, *rest = args
    before = after = device_of(tensor)
    if func is not torch.Tensor.to:
        after, rest = (CPU if func is torch.Tensor.cpu else torch.device("cuda", 0)), []
    named = [place for place in [*rest, given.get("device")] if _names_device(place)]
    if named:
        after = _device(named[0])
    if after.type == "meta" or tensor.is_meta:
        return func(*args, **given)  # type: ignore[no-any-return]
    # As it really is: the CPU's. A tensor that is named has a number type to follow, too.
    real = [_really(place) if _names_device(place) else place for place in rest]
    given = {name: _really(v) if name == "device" else v for name, v in given.items()}
    moved: torch.Tensor = torch.Tensor.to(tensor, *real, **given) if real or given else tensor
    if after != before:
        moved = moved.detach().clone()
    if moved is not tensor:
        _mark([moved], after)
    return moved


def _really(place: Any) -> Any:
    return place if isinstance(place, torch.Tensor) or place is None else CPU


def _names_device(argument: Any) -> bool:
    number = isinstance(argument, int) and not isinstance(argument, bool)
    return number or isinstance(argument, (str, torch.device, torch.Tensor))


def _device(named: Any) -> torch.device:
    if isinstance(named, torch.Tensor):
        return device_of(named)
    found = torch.device("cuda", named) if isinstance(named, int) else torch.device(named)
    return torch.device("cuda", 0) if found.type == "cuda" and found.index is None else found


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for branch in tree:
            yield from _tensors(branch)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _common(func: Any, found: Iterable[torch.Tensor]) -> torch.device:
    """Where tensors are computed with together; a single number of the CPU goes with any."""
    tensors = list(found)
    at = {device_of(t) for t in tensors if t.dim() > 0 or device_of(t) != CPU}
    if len(at - {torch.device("meta")}) > 1:
        name = getattr(func, "__name__", func)
        raise RuntimeError(
            f"{name}: expected all tensors on one device, found {sorted(map(str, at))}"
        )
    return next(iter(at), CPU)


def _mark(tensors: Iterable[torch.Tensor], at: torch.device) -> None:
    for tensor in tensors:
        if not tensor.is_meta:
            tensor.untyped_storage().pretended = at  # type: ignore[attr-defined]


def pretend_memory(monkeypatch: pytest.MonkeyPatch, free: Sequence[int]) -> None:
    """Have `torch.cuda` tell of GPUs with so many free bytes, of which nothing is ever used."""

    def index(device: Any = None) -> int:
        return 0 if device is None else _device(device).index or 0

    facts: dict[str, Callable[..., Any]] = {
        "mem_get_info": lambda device=None: (free[index(device)], free[index(device)]),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_per_process_memory_fraction": lambda device=None: 1.0,
        "get_device_capability": lambda device=None: (9, 0),
        "empty_cache": lambda: None,
    }
    for name, fact in facts.items():
        monkeypatch.setattr(torch.cuda, name, fact)
