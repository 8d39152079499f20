"""One section of a YAML file as a validated model."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of settings: unknown keys are refused, and what is read does not change."""

    # Built when first read: a worker is sent its settings, and starts sooner without the rules.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), defer_build=True
    )


def with_variants(given: Any, instead: frozenset[str] = frozenset()) -> Any:
    """A section whose `variants` have all that it has, but for what they say themselves.

    Args:
        instead: keys that say one thing in several ways: a variant with one of them inherits none.
    """
    variants = given.get("variants") if isinstance(given, dict) else None
    if not isinstance(variants, list) or not all(isinstance(v, dict) for v in variants):
        return given
    own = {key: value for key, value in given.items() if key not in ("variants", "where")}
    merged = []
    for variant in variants:
        left = own.keys() - (instead if instead & variant.keys() else frozenset())
        merged.append({**{key: own[key] for key in own if key in left}, **variant})
    return {**given, "variants": merged}
