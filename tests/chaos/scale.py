"""How much: a little as a part of the normal tests, all of it by `make chaos` (CHAOS=full)."""

import os
from typing import TypeVar

T = TypeVar("T")
FULL = os.environ.get("CHAOS") == "full"
# Seconds within which a process has to be gone, or to be replaced after its deadline.
LIMIT = float(os.environ.get("CHAOS_LIMIT", "2.0"))

# Attacks at the most, until there were as many kills as were wanted: where the attacker is held
# up, an engine may be done before all of them.
ATTACKS = 12


def scaled(small: T, full: T) -> T:
    return full if FULL else small
