"""Seeds as users and other programs write them."""

import operator
import re
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

MAX_SEED = 2**64 - 1  # the largest that torch's generators take
RANDOM = -1  # "choose one at random", as ComfyUI and A1111 write it
_RANDOM_WORD = "random"
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_CHOICES = 2**32  # as A1111 draws them; torch's generator on a CPU uses no more bits of a seed
_MOST_DIGITS = 100  # of a seed as text; Python refuses to read thousands


def random_seed() -> int:
    """One that nobody asked for."""
    return secrets.randbelow(_CHOICES)


def seed_of_task(first: int, position: int) -> int:
    """The seed of the task at `position` where the first one has `first`; past the end from 0."""
    return (first + position) % (MAX_SEED + 1)


def read_seed(value: Any, random_allowed: bool = True) -> int:
    """A seed from a number, or from its text; RANDOM for -1 and "random".

    Raises:
        ValueError: it is none; the message says what would be one.
    """
    number = None if isinstance(value, bool) else _whole(value)
    if number is None or not (RANDOM if random_allowed else 0) <= number <= MAX_SEED:
        expected = f"expected a whole number from 0 to {MAX_SEED}"
        raise ValueError(f"{expected}, or -1 for a random one" if random_allowed else expected)
    return number


fixed_seed: Callable[[Any], int] = partial(read_seed, random_allowed=False)


def _whole(value: Any) -> int | None:
    """`value` as a whole number, however it is written; None if it is none."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() == _RANDOM_WORD:
            return RANDOM
        if len(text) > _MOST_DIGITS or not _WHOLE.fullmatch(text):
            return None
        return int(text.partition(".")[0])
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        number = int(value)
        return number if bool(number == value) else None
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return None
