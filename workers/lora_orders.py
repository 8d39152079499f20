"""Does what main orders about a LoRA between two tasks, and says what came of it."""

import time

from core.messages import FailureKind, Keep, Kept, clip, room_beside
from workers.errors import causes_of, classify
from workers.models.base import ModelFamily


def obey(family: ModelFamily, order: Keep) -> Kept:
    """Hold a LoRA, or hold it no more. Whatever is wrong with it, the model goes on as it was.

    Only after an error of the device the worker has to leave: its CUDA context is lost.
    """
    started = time.monotonic()
    kind: FailureKind | None = None
    error = ""
    try:
        family.keep_lora(order)
    except Exception as failure:
        kind, error = classify(failure)
        for cause in causes_of(failure):
            cause.__traceback__ = None  # it keeps what was loaded so far alive
    counts, loras = family.take_lora_counts(), family.resident_loras()
    return Kept(
        order.sha256,
        time.monotonic() - started,
        counts.loads,
        counts.switches,
        loras,
        kind,
        clip(error, room_beside(loras)),
    )
