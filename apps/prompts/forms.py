"""Tells the form of a file of prompts by its content and, where that may be two, its name."""

import re

from apps.prompts.json_entries import parsed
from apps.prompts.lines import COMMENT
from apps.prompts.words import Words

JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
TABLE_ENDINGS = (".csv", ".tsv", ".tab")
YAML_ENDINGS = (".yaml", ".yml")
LOOKED_AT = 4096  # characters by which a form is told
_LINES = 20
BLANK = " \t\r\n\ufeff"
# Of a damaged JSON document in a file that is not called so: a key, or a list of texts.
_LIKE_JSON = re.compile(r'^\s*\[\s*"|^\s*[\[{]?\s*\{?\s*"[^"\n]*"\s*:', re.MULTILINE)
_LIKE_YAML = re.compile(r"(-\s+)?([\w-]+)\s*:(\s|$)")


def ending_says(ending: str) -> bool:
    """Whether the end of a file's name says its form."""
    return ending in (*JSON_ENDINGS, *TABLE_ENDINGS, *YAML_ENDINGS)


def begins_like_json(text: str, ending: str) -> bool:
    """Whether a text, or the end of its name, speaks for JSON; a table may begin with a quote."""
    start = text.lstrip(BLANK)[:1]
    return start in ("[", "{", '"') and not (ending in TABLE_ENDINGS and start == '"')


def is_json(text: str, ending: str, words: Words) -> bool:
    """Whether a text is JSON or JSONL, perhaps a damaged one."""
    start = text.lstrip(BLANK)
    if begins_like_json(start, ending):
        try:
            parsed(text.strip("\ufeff"))
            return True
        except (ValueError, RecursionError):
            pass
    from apps.prompts.tables import is_table

    if ending_says(ending) or is_table(text, words):
        return False
    lines = text[:LOOKED_AT].split("\n")[:_LINES]
    if any(line.lstrip(BLANK).startswith('{"') for line in lines):
        return True
    return start.startswith(("[", "{", '"')) and bool(_LIKE_JSON.search(text[:LOOKED_AT]))


def is_yaml(text: str, words: Words) -> bool:
    """Whether a text begins as YAML does: with a marker, or a key that means something here."""
    lines = (line.strip("\ufeff") for line in text[:LOOKED_AT].split("\n"))
    first = next((x for x in lines if x.strip() and not x.lstrip().startswith(COMMENT)), "")
    if first.rstrip() == "---":
        return True
    found = _LIKE_YAML.match(first)
    if found is None:
        return False
    key = found[2].casefold()
    return key in (*words.lists, "persona") or words.field_of(key) == words.text
