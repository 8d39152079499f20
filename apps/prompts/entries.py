"""Reads a file of prompts of any form, told by its content and, where that may be two, its name.

The forms: JSON (an object with a list, a list) and JSONL, CSV and TSV with a header, YAML, and
text with a prompt on each line.
"""

from pathlib import Path

from apps.prompts.entry_list import Entries
from apps.prompts.forms import (
    BLANK,
    JSON_ENDINGS,
    LOOKED_AT,
    TABLE_ENDINGS,
    YAML_ENDINGS,
    ending_says,
    is_json,
    is_yaml,
)
from apps.prompts.json_entries import read_json_entries
from apps.prompts.lines import read_lines
from apps.prompts.streamed import read_large
from apps.prompts.text import STDIN, decoded, encoding_of, not_text, read_content, shown_path
from apps.prompts.words import PICTURES, Words
from core.errors import InputError

_OF_REQUESTS = ('"custom_id"', '"body"', '"url"')


def read_entries(path: Path, words: Words = PICTURES) -> Entries:
    """Read a file of prompts, or standard input.

    Raises:
        InputError: unreadable, no text, or of no known form.
    """
    large = read_large(path, words)
    if large is not None:
        return large
    content = read_content(path, words.thing)
    ending = "" if path == STDIN else path.suffix.lower()
    if ending in JSON_ENDINGS:
        return read_json_entries(path, content, words)
    from apps.prompts.tables import is_table, read_table  # JSON needs nothing of it

    text = decoded(content, "surrogateescape" if encoding_of(content) == "utf-8-sig" else "replace")
    if not text.strip(BLANK):
        raise InputError(f"{shown_path(path)}: holds no {words.thing}s.")
    if path == STDIN and all(word in text[:LOOKED_AT] for word in _OF_REQUESTS):
        raise InputError(
            "standard input: requests of OpenAI's Batch API are read from a file; save them as one."
        )
    if is_json(text, ending, words):
        return read_json_entries(path, content, words)
    if ending in YAML_ENDINGS or (not ending_says(ending) and is_yaml(text, words)):
        from apps.prompts.yaml_entries import read_yaml

        return read_yaml(path, _strictly(path, content), words)
    try:
        if ending in TABLE_ENDINGS or is_table(text, words):
            found = read_table(text, words)
        else:
            found = read_lines(text)
    except InputError as error:
        raise InputError(f"{shown_path(path)}: {error}") from None
    if found.entries and all(isinstance(entry, InputError) for entry in found.entries):
        _strictly(path, content)  # a file of another encoding is one error
    return found


def _strictly(path: Path, content: bytes) -> str:
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        raise not_text(path, error) from None
