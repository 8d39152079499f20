"""What decisions about models go by: the work of each model, and how each slot stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean

TASK_GUESS = 5.0  # seconds, while no model's tasks are known
FOLLOWER_GUESS = 0.25  # of that, for a model whose tasks follow from others
LOAD_GUESS = 30.0  # seconds, while no model's load is known
SHORTEST = 0.001  # seconds a task


@dataclass(frozen=True)
class ModelWork:
    """What is to do for one model.

    Attributes:
        name: any word that tells models apart.
        waiting: tasks that could start now; those that a slot has in hand are not among them.
        seconds_each: device time of one of them, on the average; None while unknown.
        load_seconds: from the decision to change a slot until it works; None while unknown.
        follows: a model whose tasks bring tasks for this one.
        coming: tasks that unfinished tasks of `follows` will bring, those in hand included.
        owed: slots that fair shares and priorities grant this model at least, while it has tasks.
        unserved: seconds for which tasks have waited while no slot had this model; of two models
            that are owed a slot, the one that waits longer gets it.
    """

    name: str
    waiting: int = 0
    seconds_each: float | None = None
    load_seconds: float | None = None
    follows: str | None = None
    coming: int = 0
    owed: int = 0
    unserved: float = 0.0


@dataclass(frozen=True)
class SlotState:
    """One slot as it is now.

    Attributes:
        model: that it has, or is loading; None: none yet.
        free_in: seconds until its load or its tasks in hand are done, as expected; 0: it does
            nothing.
        tasks: that it has in hand; 0 while it is loading.
        busy_for: seconds since it began to load, or to work at what it has in hand.
        worked: seconds that it has worked since its model was loaded.
        unfit: models that it cannot serve.
    """

    name: str
    model: str | None = None
    free_in: float = 0.0
    tasks: int = 0
    busy_for: float = 0.0
    worked: float = inf
    unfit: frozenset[str] = frozenset()


def times_or_guesses(
    works: Sequence[ModelWork], slots: Sequence[SlotState]
) -> tuple[list[float], list[float]]:
    """Seconds a task and a load of every model.

    What is unknown is taken from the other models, or guessed; and what goes on
    already is assumed to need as long again.
    """
    known = [w.seconds_each for w in works if w.seconds_each is not None]
    loads = [w.load_seconds for w in works if w.load_seconds is not None]
    task_guess, load_guess = mean(known or [TASK_GUESS]), mean(loads or [LOAD_GUESS])
    each, load = [], []
    for work in works:
        mine = [slot for slot in slots if slot.model == work.name and slot.free_in > 0]
        so_far = [2 * slot.busy_for / slot.tasks for slot in mine if slot.tasks]
        loading = [2 * slot.busy_for for slot in mine if not slot.tasks]
        guess = task_guess if work.follows is None else task_guess * FOLLOWER_GUESS
        each.append(max(work.seconds_each or max(so_far, default=guess), SHORTEST))
        load.append(max([load_guess, *loading]) if work.load_seconds is None else work.load_seconds)
    return each, load
