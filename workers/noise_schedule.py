"""Brings the setting `scheduler` to a loaded pipeline, and its noise from each picture's seed."""

import functools
import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import diffusers

from core.errors import InputError
from core.noise_schedule import CLASS, FLOW_CLASSES, OTHER_CLASSES


def check_schedule(settings: Mapping[str, Any], model: str, revision: str | None) -> None:
    """Refuse, before any weights are loaded, what the scheduler's class does not know.

    Raises:
        InputError: names the key and what may have been meant.
    """
    if not settings:
        return
    name = settings.get(CLASS)
    if name is None:
        try:
            index = diffusers.DiffusionPipeline.load_config(model, revision=revision)
        except (OSError, ValueError):
            return  # no index to look into: it is checked when the pipeline is there
        library, name = (index.get("scheduler") or [None, None])[:2]
        if library != "diffusers" or not hasattr(diffusers, str(name)):
            return
    _check_names(settings, getattr(diffusers, str(name)))


def set_schedule(pipeline: Any, settings: Mapping[str, Any]) -> None:
    """Lay the settings over those of the checkpoint's scheduler.

    Raises:
        InputError: the class does not go with the pipeline, or does not know a setting.
    """
    if not settings:
        return
    own = getattr(pipeline, "scheduler", None)
    if own is None:
        raise InputError(f"scheduler: {type(pipeline).__name__} has none.")
    kind = getattr(diffusers, settings[CLASS]) if CLASS in settings else type(own)
    over = {name: value for name, value in settings.items() if name != CLASS}
    _check_names(settings, kind)
    _check_fit(own, kind)
    try:
        scheduler = kind.from_config({**own.config, **over})
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"scheduler: {kind.__name__} refuses it: {reason}") from None
    taken = {name: _listed(scheduler.config.get(name)) for name in over}
    wrong = [name for name, value in over.items() if taken[name] != value]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"scheduler.{name}: {kind.__name__} makes {taken[name]!r} of {over[name]!r}."
        )
    pipeline.scheduler = scheduler


class StepNoise:
    """Makes a scheduler that adds noise in its steps take it from the picture's own generator.

    Pipelines of flow-matching models do not pass theirs on, and the process's would be taken.

    Attributes:
        generator: of the picture that is drawn, or one for each.
    """

    def __init__(self, pipeline: Any) -> None:
        self.generator: Any = None
        scheduler = getattr(pipeline, "scheduler", None)
        step = getattr(scheduler, "step", None)
        if scheduler is None or step is None or not _takes_generator(step):
            return

        @functools.wraps(step)  # pipelines look at its signature
        def seeded(*args: Any, **given: Any) -> Any:
            if given.get("generator") is None:
                given["generator"] = self.generator
            return step(*args, **given)

        scheduler.step = seeded


def _takes_generator(step: Any) -> bool:
    return "generator" in inspect.signature(step).parameters


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_names(settings: Mapping[str, Any], kind: Any) -> None:
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in settings:
        if name != CLASS and name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}."
            raise InputError(f"scheduler.{name}: {kind.__name__} has no such setting; {hint}")


def _check_fit(own: Any, kind: Any) -> None:
    """Raises InputError for a class that computes with another kind of noise than the model."""
    if kind is type(own):
        return
    name, fitting = type(own).__name__, tuple[str, ...]()
    if name.startswith("FlowMatch"):
        fitting = FLOW_CLASSES
    elif name in OTHER_CLASSES and own.config.get("prediction_type") != "flow_prediction":
        fitting = OTHER_CLASSES
    if kind.__name__ in fitting:
        return
    raise InputError(
        f"scheduler.class: {kind.__name__} does not go with a model whose own scheduler is "
        f"{name}; these do: {', '.join(fitting) or name}."
    )
