"""What a judge's server was asked in all, and what that cost."""

from collections.abc import Iterable, Mapping
from typing import Any

REQUESTS, TOKENS_IN, TOKENS_OUT, COST = "requests", "tokens_in", "tokens_out", "cost"


def usage_of(verdicts: Iterable[Mapping[str, Any] | None]) -> dict[str, float] | None:
    """Sums over all verdicts, those of earlier runs included; None where no server was asked.

    The cost is there only if every verdict has one: of some alone it would mislead.
    """
    used = [verdict["used"].get("usage") for verdict in verdicts if verdict is not None]
    given = [usage for usage in used if isinstance(usage, dict)]
    if not given:
        return None
    names = [REQUESTS, TOKENS_IN, TOKENS_OUT]
    names += [COST] if all(COST in usage for usage in given) else []
    return {name: sum(usage.get(name, 0) for usage in given) for name in names}


def usage_line(usage: Mapping[str, float]) -> str:
    """The sums in words."""
    counts = [
        f"{usage[REQUESTS]:,.0f} requests",
        f"{usage[TOKENS_IN]:,.0f} tokens in",
        f"{usage[TOKENS_OUT]:,.0f} out",
    ]
    if COST in usage:
        counts.append(f"cost {usage[COST]:.4g} by the prices of judge.api")
    return ", ".join(counts)
