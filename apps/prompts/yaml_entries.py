"""YAML files with prompts: a list, an object with a list, or an object of names and prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.prompts.entry_list import Entries
from apps.prompts.json_entries import of_document
from apps.prompts.words import Words
from core.errors import InputError
from core.validation import shown
from core.yaml_files import MAX_VALUES, parse_yaml


def read_yaml(path: Path, text: str, words: Words) -> Entries:
    """The entries of a YAML document.

    Raises:
        InputError: not YAML, or of no known form.
    """
    try:
        # Aliases must not unfold to more than somebody could have written out.
        data = parse_yaml(text, most=max(MAX_VALUES, len(text)))
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from None
    named = _named(data, words)
    if named is not None:
        names = list(named)
        entries = [words.named(name, entry) for name, entry in named.items()]
        return Entries(entries, places=lambda index: f"entry {shown(names[index])}", by_id=True)
    return of_document(path, data, words)


def _named(data: Any, words: Words) -> Mapping[str, Any] | None:
    """Prompts by their names; None for another form."""
    if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
        return None
    if not all(isinstance(value, (str, dict)) for value in data.values()):
        return None
    try:
        of_document(Path(), data, words)
    except InputError:
        return data
    return None
