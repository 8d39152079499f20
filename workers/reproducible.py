"""Makes pixels independent of the number of CPU threads.

Matrix products keep their order of summation under `MKL_CBWR=AUTO,STRICT`, which main sets
in a CPU worker's environment. oneDNN's convolutions have no such mode: their result changes
in the last bits with the number of threads, so convolutional parts run on one thread. In
the transformer pipelines that is only the autoencoder, a few per cent of the work.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

CONVOLUTIONAL = (("vae", "decode"), ("vae", "encode"), ("unet", "forward"))


def make_reproducible(pipeline: Any) -> None:
    """Wrap the convolutional parts of a pipeline that runs on a CPU."""
    for component, method in CONVOLUTIONAL:
        module = getattr(pipeline, component, None)
        if module is not None:
            setattr(module, method, _on_one_thread(getattr(module, method)))


def _on_one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return wrapper
