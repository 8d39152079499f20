"""Puts something in front of the calls of one module."""

import functools
from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]


def put_in_front(module: Any, around: Callable[[Call], Call]) -> None:
    """Pass every call of this one module through `around(call)`.

    Its class is exchanged for one of the same name instead of its `forward`: offloading puts its
    own there, and where it takes it away again, as for every new LoRA, what was put on top is lost.

    Args:
        around: makes the new call of the one before, which has the signature of `forward`.
    """
    kind = type(module)
    before = functools.update_wrapper(functools.partial(kind.__call__, module), module.forward)
    call = around(before)

    def through(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    names = {"__call__": through, "__module__": kind.__module__}
    module.__class__ = type(kind.__name__, (kind,), names)
