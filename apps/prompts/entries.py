"""Reads a file of prompts of any form, told by its content and, where that may be two, its name.

The forms: JSON (an object with a list, a list) and JSONL, CSV and TSV with a header, YAML, and
text with a prompt on each line.
"""

import re
from pathlib import Path

from apps.prompts.entry_list import Entries
from apps.prompts.json_entries import parsed, read_json_entries
from apps.prompts.lines import COMMENT, read_lines
from apps.prompts.text import STDIN, decoded, encoding_of, not_text, read_content, shown_path
from apps.prompts.words import PICTURES, Words
from core.errors import InputError

JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
TABLE_ENDINGS = (".csv", ".tsv", ".tab")
YAML_ENDINGS = (".yaml", ".yml")
_LOOKED_AT = 4096  # characters by which a form is told
_LINES = 20
_OF_REQUESTS = ('"custom_id"', '"body"', '"url"')
_BLANK = " \t\r\n\ufeff"
# Of a damaged JSON document in a file that is not called so: a key, or a list of texts.
_LIKE_JSON = re.compile(r'^\s*\[\s*"|^\s*[\[{]?\s*\{?\s*"[^"\n]*"\s*:', re.MULTILINE)
_LIKE_YAML = re.compile(r"(-\s+)?([\w-]+)\s*:(\s|$)")


def read_entries(path: Path, words: Words = PICTURES) -> Entries:
    """Read a file of prompts, or standard input.

    Raises:
        InputError: unreadable, no text, or of no known form.
    """
    content = read_content(path, words.thing)
    ending = "" if path == STDIN else path.suffix.lower()
    if ending in JSON_ENDINGS:
        return read_json_entries(path, content, words)
    from apps.prompts.tables import is_table, read_table  # JSON needs nothing of it

    text = decoded(content, "surrogateescape" if encoding_of(content) == "utf-8-sig" else "replace")
    if not text.strip(_BLANK):
        raise InputError(f"{shown_path(path)}: holds no {words.thing}s.")
    if path == STDIN and all(word in text[:_LOOKED_AT] for word in _OF_REQUESTS):
        raise InputError(
            "standard input: requests of OpenAI's Batch API are read from a file; save them as one."
        )
    if _is_json(text, ending, words):
        return read_json_entries(path, content, words)
    if ending in YAML_ENDINGS or (not ending_says(ending) and _is_yaml(text, words)):
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


def ending_says(ending: str) -> bool:
    """Whether the end of a file's name says its form."""
    return ending in (*JSON_ENDINGS, *TABLE_ENDINGS, *YAML_ENDINGS)


def _strictly(path: Path, content: bytes) -> str:
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        raise not_text(path, error) from None


def _is_json(text: str, ending: str, words: Words) -> bool:
    """Whether a text is JSON or JSONL, perhaps a damaged one."""
    start = text.lstrip(_BLANK)
    if start.startswith(("[", "{", '"')) and not (ending in TABLE_ENDINGS and start[0] == '"'):
        try:
            parsed(text.strip("\ufeff"))
            return True
        except (ValueError, RecursionError):
            pass
    from apps.prompts.tables import is_table

    if ending_says(ending) or is_table(text, words):
        return False
    lines = text[:_LOOKED_AT].split("\n")[:_LINES]
    if any(line.lstrip(_BLANK).startswith('{"') for line in lines):
        return True
    return start.startswith(("[", "{", '"')) and bool(_LIKE_JSON.search(text[:_LOOKED_AT]))


def _is_yaml(text: str, words: Words) -> bool:
    """Whether a text begins as YAML does: with a marker, or a key that means something here."""
    lines = (line.strip("\ufeff") for line in text[:_LOOKED_AT].split("\n"))
    first = next((x for x in lines if x.strip() and not x.lstrip().startswith(COMMENT)), "")
    if first.rstrip() == "---":
        return True
    found = _LIKE_YAML.match(first)
    if found is None:
        return False
    key = found[2].casefold()
    return key in (*words.lists, "persona") or words.field_of(key) == words.text
