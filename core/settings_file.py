"""Settings read from YAML files, laid over each other and validated."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from core.errors import InputError
from core.paths import user_path
from core.validation import Place, describe

MAX_FILE_BYTES = 200_000

S = TypeVar("S", bound=BaseModel)


def overlaid(
    kind: type[S],
    files: Sequence[Path],
    source: str | Path | Mapping[str, Any] | None,
) -> S:
    """Settings from YAML files, each laid over the one before, and `source` over all of them.

    Only the keys of `kind` are taken from the first files, so that one file can hold the
    defaults of several kinds of run.
    """
    base: dict[str, Any] = {}
    for file in files:
        base = _overlay(base, _read_yaml(file, own=True))
    base = {key: value for key, value in base.items() if key in kind.model_fields}
    if source is None:
        return _validate(kind, base, files[-1].name)
    if isinstance(source, Mapping):
        return _validate(kind, _overlay(base, source), "config")
    given = _read_yaml(user_path(source, "config"))
    return _validate(kind, _overlay(base, given), str(source))


def laid_over(settings: S, changes: Mapping[str, Any], load: Callable[[Any], S]) -> S:
    """Settings with others over them; of a section with single ones.

    Args:
        load: reads and checks settings.
    """
    known = settings.model_dump(exclude_unset=True)
    for key, value in changes.items():
        is_section = isinstance(value, Mapping)
        if not is_section:
            known[key] = value
        elif value:
            known[key] = {**(known.get(key) or {}), **value}
    return load(known)


def _read_yaml(path: Path, own: bool = False) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: larger than 200 kB, which no settings file is.")
        data = copy.deepcopy(_parsed(path.read_text(encoding="utf-8"), own))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except ValueError as error:  # also of a path with a NUL
        raise InputError(f"{path}: {error}.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected `key: value` lines, found a {type(data).__name__}.")
    return data


@lru_cache(maxsize=16)
def _parsed(text: str, own: bool) -> Any:
    """Parse each text once: most of it are the defaults."""
    from core.yaml_files import parse_yaml  # main alone reads files; workers do without yaml

    return parse_yaml(text, own)


def _overlay(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on top: sections merge key by key, lists and values are replaced whole."""
    merged = copy.copy(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            value = _overlay(dict(base[key]), value)
        merged[key] = value
    return merged


def _validate(kind: type[S], data: Mapping[str, Any], origin: str) -> S:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{origin}: {_described(kind, error)}") from None


def _described(kind: type[BaseModel], error: ValidationError) -> str:
    elsewhere = {**_keys_below(kind), **getattr(kind, "other_names", {})}
    return describe(error, partial(_keys_at, kind), elsewhere)


@cache
def _keys_below(kind: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """All keys of a kind of settings with their sections before them, by their own names."""
    found: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        for section in (field.annotation, *get_args(field.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                found = {**_keys_below(section, f"{prefix}{name}."), **found}
        found[name] = f"{prefix}{name}"
    return found


def _keys_at(kind: type[BaseModel], place: Place) -> list[str]:
    """The keys that may stand beside the one at `place`."""
    for part in place[:-1]:
        if isinstance(part, str):
            field = kind.model_fields.get(part)
            inside = (field.annotation, *get_args(field.annotation)) if field else ()
            models = [a for a in inside if isinstance(a, type) and issubclass(a, BaseModel)]
            if not models:
                return []
            kind = models[0]
    return list(kind.model_fields)
