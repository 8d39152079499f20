"""Tweet files and prompt lists, as task inputs.

`apps.prompts.entries` tells their forms apart: the persona file, version "2.0"
(`{"persona": {…}, "tweets": [{…}]}`), lists and JSONL of tweets, of plain GenerateTask fields or of
prompts, tables, YAML, and text with a prompt on each line.

A file that cannot be read at all raises; an entry that cannot be used becomes an
`InputError` in its place, so that it ends as a failed record and not as a missing one.
docs/TWEETS.md says which names and places of a setting count.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from apps.prompts.bad_entry import BadEntry
from apps.prompts.entries import read_entries
from apps.prompts.entry_list import Entries, EntryList
from apps.prompts.kept_columns import kept_columns
from apps.prompts.run_names import file_name, name_of_run
from apps.prompts.text import STDIN, shown_path
from core.errors import InputError, one_line
from core.intake import spellings
from core.intake.picture_settings import read_layer
from core.intake.setting_values import is_empty, is_set
from core.intake.settings_layer import Layer, merged
from core.intake.spellings import ALIKE
from core.intake.task_kinds import Inputs, PlacedTask, TaskInput
from core.names import cleaned, counted, cut, distinct
from core.paths import as_text, user_path
from core.seeds import RANDOM
from core.store.outputs import PICTURE_SUFFIXES
from core.validation import MAX_SHOWN, misspelt, shown

MAX_PROMPT = 60  # characters of a prompt in the name of its picture
DRAWN = "drawn"  # the folder of prompts of the command line
FEW = 1000  # entries: so many are all read before anything is done
MAX_PASSED_OVER = 20  # keys that one line names
PROMPT_FIELDS = ("prompt", "positive_prompt", "scene_hint")  # the first that is not empty
PROMPT_SOURCES = (*PROMPT_FIELDS, "tweet_text")
_KEPT = {  # as metadata of the picture
    spellings.plain(key): key for key in ("slot", "tweet_text", "content_type", "subtype", "mood")
}
_OF_ONE_ENTRY = ("output_path", "task_id", "metadata")


class TweetFile:
    """What a file asks for.

    Attributes:
        name_of_run: the folder of its pictures.
        folder: where its relative LoRA paths are looked up first.
        inputs: of a large file they are made as they are asked for, which is done once.
    """

    def __init__(self, name_of_run: str, folder: Path, inputs: Inputs, reader: "_Reader") -> None:
        self.name_of_run = name_of_run
        self.folder = folder
        self.inputs = inputs
        self._reader = reader

    @property
    def noun(self) -> str:
        """What one input is called: a tweet, or a prompt."""
        return self._reader.unit

    @property
    def passed_over(self) -> str | None:
        """One line about keys that meant nothing in what was read; None if there are none."""
        return self._reader.passed_over()

    @property
    def is_read(self) -> bool:
        """All inputs have been made."""
        return isinstance(self.inputs, list) or not getattr(self.inputs, "unread", 0)


def read_tweets(
    path: Path, prompt_from: str | None = None, limit: int | None = None, suffix: str = ".png"
) -> TweetFile:
    """Read a file of tweets or prompts; STDIN is standard input.

    Args:
        prompt_from: take the prompt from this field alone (one of PROMPT_SOURCES).
        limit: only the first so many entries.
        suffix: of the pictures that get their name from here.

    Raises:
        InputError: unreadable, not text, of no known form, or without entries.
    """
    path = path if path == STDIN else user_path(path, "TWEETS")
    found = read_entries(path)
    if not found.entries:
        raise InputError(f"{shown_path(path)}: holds no {_what(found)}.")
    if path == STDIN:
        return _tweets(found, "stdin", "standard input", Path.cwd(), prompt_from, limit, suffix)
    stem, folder = as_text(path.stem), path.resolve().parent
    return _tweets(found, stem, path.name, folder, prompt_from, limit, suffix)


def read_prompts(
    prompts: Sequence[str], first_seed: int, limit: int | None = None, suffix: str = ".png"
) -> TweetFile:
    """Take prompts as they are; each picture is called by its own.

    Args:
        first_seed: of each of them, so that a prompt's picture depends on no other prompt.
    """
    each = list(dict.fromkeys(prompts))
    slugs = [cleaned(prompt, "-").strip("_") for prompt in each]
    seed = {} if first_seed == RANDOM else {"seed": first_seed}
    entries = []
    for prompt, slug in zip(each, slugs, strict=True):
        name = cut(slug, MAX_PROMPT)
        if name != slug or not name or slugs.count(slug) > 1:
            name = distinct(prompt, name or "prompt")
        entries.append({"prompt": prompt, "task_id": name, **seed})
    found = Entries(entries, places=lambda index: f"prompt {index + 1}", by_id=True)
    return _tweets(found, DRAWN, "--prompt", Path.cwd(), None, limit, suffix)


def _tweets(
    found: Entries,
    stem: str,
    file: str,
    folder: Path,
    prompt_from: str | None,
    limit: int | None,
    suffix: str,
) -> TweetFile:
    name = file_name(found.name) or file_name(stem) or "image"
    reader = _Reader(file, found, name, prompt_from, suffix)
    count = len(found.entries) if limit is None else min(limit, len(found.entries))
    entries = islice(found.entries, count)
    unread: _Unread | _ReadLater
    if isinstance(found.entries, list):
        unread = _Unread(reader, list(entries))
    else:
        unread = _ReadLater(reader, found.entries, count)
    inputs: Inputs = unread if count > FEW else list(unread)
    return TweetFile(name_of_run(stem), folder, inputs, reader)


class _Unread:
    """Entries of a file that become task inputs one by one; each is let go of then."""

    def __init__(self, reader: "_Reader", entries: list[Any]) -> None:
        self._reader = reader
        self._entries = deque(entries)
        self._count = len(entries)

    def __len__(self) -> int:
        return self._count

    @property
    def unread(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[TaskInput]:
        while self._entries:
            yield self._reader.task(self._count - len(self._entries), self._entries.popleft())


class _ReadLater:
    """Entries that are read from their file as task inputs are asked for, each time anew.

    Attributes:
        unread: how many have not been read by whoever iterated last.
    """

    rereadable = True

    def __init__(self, reader: "_Reader", entries: EntryList, count: int) -> None:
        self._reader = reader
        self._entries = entries
        self._count = self.unread = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[TaskInput]:
        self._reader.begin_anew()
        self.unread = self._count
        for index, entry in enumerate(islice(self._entries, self._count)):
            self.unread -= 1
            yield self._reader.task(index, entry)


class _Reader:
    """Turns the entries of one file into task inputs."""

    def __init__(
        self, file: str, found: Entries, name: str, prompt_from: str | None, suffix: str
    ) -> None:
        self._file = file
        self._found = found
        self._of_persona = found.of_persona
        self._persona = found.name if is_set(found.name) else None
        self._name = name
        self._suffix = suffix
        self._sources = (prompt_from,) if prompt_from else PROMPT_FIELDS
        self._passed_over: Counter[str] = Counter()  # of entries, by key
        self._passed_over_for_all: list[str] = []
        self._shared: list[Layer] = []  # of all entries, the nearest first
        self._unusable: InputError | None = None  # something is wrong there
        for holder, where in ((found.persona, "persona"), (found.around, "whole file")):
            try:
                self._shared.append(self._layer_of_all(holder, where))
            except InputError as error:
                self._unusable = self._unusable or InputError(f"{where}: {error}")

    def begin_anew(self) -> None:
        """Forget what was seen of entries: they are read once more."""
        self._passed_over.clear()

    def task(self, index: int, entry: Any) -> TaskInput:
        task_id = f"{self._name}_{index:02d}"
        where = f"{self._file}: {self._found.places(index)}"
        try:
            if isinstance(entry, InputError):
                raise entry
            fields = self._fields(entry)
        except InputError as error:
            return BadEntry(f"{where}: {error}", task_id)
        except RecursionError:
            return BadEntry(f"{where}: nested too deeply.", task_id)
        if self._found.by_id:
            self._name_by_id(fields)
        fields.setdefault("task_id", task_id)
        fields.setdefault("output_path", f"{task_id}{self._suffix}")
        return PlacedTask(fields, where) if self._found.names_places else fields

    def _name_by_id(self, fields: dict[str, Any]) -> None:
        """Call a picture by the id of its row, where there is one; complete a name it was given."""
        given, id = fields.get("output_path"), fields.get("task_id")
        if isinstance(given, str) and PurePosixPath(given).suffix.lower() not in PICTURE_SUFFIXES:
            fields["output_path"] = f"{given}{self._suffix}"
        elif given is None and (name := file_name(id)):
            fields["output_path"] = f"{name}{self._suffix}"

    def passed_over(self) -> str | None:
        """One line about the keys that meant nothing here; None if there are none."""
        if not self._passed_over and not self._passed_over_for_all:
            return None
        parts: list[str] = []
        for key, count in self._passed_over.most_common(MAX_PASSED_OVER):
            parts.append(f"{_short(key)} ({count if parts else counted(count, self.unit)})")
        left = len(self._passed_over) - len(parts)
        parts += [f"{left} more"] if left else []
        parts += self._passed_over_for_all
        return one_line(
            f"Passed over in {self._file}: {', '.join(parts)}. They mean nothing here; "
            "docs/TWEETS.md lists what counts."
        )

    @property
    def unit(self) -> str:
        """What one entry is called."""
        return _what(self._found).removesuffix("s")

    def _fields(self, entry: Any) -> dict[str, Any]:
        if isinstance(entry, str):  # a prompt by itself, whatever it is called elsewhere
            entry = {self._sources[0]: entry}
        if is_empty(entry):  # PHP's empty object, too
            entry = {}
        if not isinstance(entry, dict):
            raise InputError(f"expected an object or a prompt, found {shown(entry)}.")
        plain = not self._of_persona and not any(
            spellings.container(key) == "image_generation" for key in entry
        )
        layer = read_layer(entry, free=not plain)
        self._passed_over.update(dict.fromkeys(layer.passed_over, 1))
        prompt = self._prompt(entry, layer)
        if self._unusable is not None:
            raise self._unusable
        fields = {"prompt": prompt, **merged([layer, *self._shared])}
        texts = {
            _KEPT.get(spellings.compared(k)): text for k, text in entry.items() if is_set(text)
        }
        others = {k: v for k, v in layer.others.items() if spellings.compared(k) not in _KEPT}
        metadata, left_out = kept_columns(others)
        self._passed_over.update(dict.fromkeys(left_out, 1))
        metadata |= {key: texts[key] for key in _KEPT.values() if key in texts}
        if self._persona is not None:
            metadata["persona"] = self._persona
        own = fields.pop("metadata", {})
        if isinstance(own, dict):
            metadata |= own
        elif plain:
            raise InputError(f"metadata: expected an object, found {shown(own)}.")
        else:
            metadata["metadata"] = own
        return {**fields, "metadata": metadata} if metadata else fields

    def _prompt(self, entry: Mapping[str, Any], layer: Layer) -> Any:
        for source in self._sources:
            for place in layer.places:
                if source in place.prompts:
                    return place.prompts[source]
        keys = [*entry, *(key for part in entry.values() if isinstance(part, dict) for key in part)]
        hint = misspelt(keys, self._sources, PROMPT_SOURCES, ALIKE)
        raise InputError(f"has no prompt: {' / '.join(self._sources)} missing or empty{hint}")

    def _layer_of_all(self, holder: Mapping[str, Any], name: str) -> Layer:
        """Settings that hold for every entry. Prompts, names and places are one entry's own."""
        layer = read_layer(holder, free=True, of_persona=name == "persona")
        own: list[str] = []
        for place in layer.places:
            own += [source for source in PROMPT_FIELDS if source in place.prompts]
            for field in _OF_ONE_ENTRY:
                given = place.settings.pop(field, None)
                own += [given.key] if given is not None and field != "metadata" else []
        keys = dict.fromkeys([*layer.passed_over, *own])
        self._passed_over_for_all += [
            f"{_short(key)} ({name})" for key in list(keys)[:MAX_PASSED_OVER]
        ]
        return layer


def _what(found: Entries) -> str:
    """What its entries are, in the plural."""
    return "prompts" if found.names_places else "tweets"


def _short(key: str) -> str:
    return key if len(key) <= MAX_SHOWN else f"{key[: MAX_SHOWN - 1]}…"
