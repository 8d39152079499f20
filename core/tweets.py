"""Tweet files and prompt lists, as task inputs.

Three forms are read, told apart by content:

- the persona file, version "2.0": `{"persona": {…}, "tweets": [{…}]}`;
- a JSON list of objects, each a tweet as above or plain GenerateTask fields;
- JSONL: one such object per line.

A file that cannot be read at all raises; an entry that cannot be used becomes an
`InputError` in its place, so that it ends as a failed record and not as a missing one.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.paths import as_text, user_path
from core.task_kinds import TaskInput
from core.validation import misspelt, shown

MAX_FILE_BYTES = 1_000_000_000
MAX_NAME = 100  # characters of a persona's name in file names
PROMPT_FIELDS = ("prompt", "positive_prompt", "scene_hint")  # the first that is not empty
PROMPT_SOURCES = (*PROMPT_FIELDS, "tweet_text")
_KEPT = ("slot", "tweet_text", "content_type", "subtype", "mood")  # as metadata of the picture
_GENERATION = {  # key in `generation_params`: field of GenerateTask
    "width": "width",
    "height": "height",
    "steps": "num_inference_steps",
    "num_inference_steps": "num_inference_steps",
    "cfg": "cfg",
    "guidance_scale": "guidance_scale",
    "seed": "seed",
}
_LORA = ("model_path", "strength")
ALIKE = 0.8  # of two keys, as difflib measures it: one is the other misspelt


class BadTweet(InputError):
    """An entry that cannot be used; knows the id under which it is recorded."""

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


@dataclass(frozen=True)
class TweetFile:
    """What a file asks for.

    Attributes:
        name_of_run: the folder of its pictures.
        folder: where its relative LoRA paths are looked up first.
    """

    name_of_run: str
    folder: Path
    inputs: list[TaskInput]


def read_tweets(
    path: Path, prompt_from: str | None = None, limit: int | None = None, suffix: str = ".png"
) -> TweetFile:
    """Read a tweets file.

    Args:
        prompt_from: take the prompt from this field alone (one of PROMPT_SOURCES).
        limit: only the first so many entries.
        suffix: of the pictures that get their name from here.

    Raises:
        InputError: unreadable, not UTF-8, not JSON, of no known form, or without entries.
    """
    path = user_path(path, "TWEETS")
    text, stem = _read_text(path), as_text(path.stem)
    persona, entries = _parse(path, text)
    name = _file_name(persona.get("name")) or _file_name(stem) or "image"
    if not entries:
        raise InputError(f"{path}: holds no tweets.")
    reader = _Reader(path, persona, name, prompt_from, suffix)
    inputs = [reader.task(i, entry) for i, entry in enumerate(entries[:limit])]
    return TweetFile(_file_name(stem) or "run", path.resolve().parent, inputs)


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; a JSON or JSONL file is needed.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: larger than 1 GB; split it.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}.") from None


def _parse(path: Path, text: str) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """Persona (empty for a bare list) and entries."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = text.split("\n")  # alone: JSON text may hold U+2028 as it is
        # JSONL is no single JSON document: its first line alone is one.
        if isinstance(error, json.JSONDecodeError) and _is_object(lines):
            return {}, _parse_lines(path, lines)
        raise InputError(f"{path}: not valid JSON: {_reason(error)}.") from None
    if isinstance(data, list):
        return {}, data
    if isinstance(data, dict) and isinstance(data.get("tweets"), list):
        persona = data.get("persona") or {}
        if not isinstance(persona, dict):
            raise InputError(f"{path}: persona: expected an object, found {shown(persona)}.")
        return persona, data["tweets"]
    if isinstance(data, dict) and "tweets" not in data and _has_prompt(data):
        return {}, [data]  # JSONL of one line
    found = f"an object with the keys {shown(list(data)[:6])}" if isinstance(data, dict) else "none"
    raise InputError(
        f"{path}: expected a list of objects, or an object with a list `tweets`; found {found}."
    )


def _is_object(lines: Sequence[str]) -> bool:
    first = next((line for line in lines if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _parse_lines(path: Path, lines: Sequence[str]) -> list[Any]:
    entries: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            entries.append(InputError(f"line {number}: not valid JSON: {_reason(error)}."))
    return entries


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _has_prompt(data: Mapping[str, Any]) -> bool:
    return any(key in data for key in (*PROMPT_SOURCES, "image_generation"))


class _Reader:
    """Turns the entries of one file into task inputs."""

    def __init__(
        self,
        path: Path,
        persona: Mapping[str, Any],
        name: str,
        prompt_from: str | None,
        suffix: str,
    ) -> None:
        self._path = path
        self._persona = persona
        self._name = name
        self._suffix = suffix
        self._fields = (prompt_from,) if prompt_from else PROMPT_FIELDS

    def task(self, index: int, entry: Any) -> TaskInput:
        task_id = f"{self._name}_{index:02d}"
        where = f"{self._path.name}: tweet {index}"
        try:
            if isinstance(entry, InputError):
                raise entry
            if not isinstance(entry, dict):
                raise InputError(f"expected an object, found {shown(entry)}.")
            if "image_generation" in entry or self._persona:
                fields = self._from_tweet(entry)
            else:
                fields = self._from_plain(entry)
        except InputError as error:
            return BadTweet(f"{where}: {error}", task_id)
        fields.setdefault("task_id", task_id)
        fields.setdefault("output_path", f"{task_id}{self._suffix}")
        return fields

    def _from_plain(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """GenerateTask fields as they stand; the other prompt fields stand in for `prompt`."""
        fields = {k: v for k, v in entry.items() if k not in PROMPT_SOURCES and _is_set(v)}
        fields["prompt"] = self._prompt(entry)
        if _is_set(entry.get("tweet_text")):
            metadata = _section(entry, "metadata")
            fields["metadata"] = {"tweet_text": entry["tweet_text"], **metadata}
        return fields

    def _from_tweet(self, tweet: Mapping[str, Any]) -> dict[str, Any]:
        image = _section(tweet, "image_generation")
        fields: dict[str, Any] = {"prompt": self._prompt({**tweet, **_set_only(image)})}
        for layer in (self._persona, image):
            parameters = _section(layer, "generation_params")
            _check_spelling("generation_params", parameters, _GENERATION)
            given = {v: parameters[k] for k, v in _GENERATION.items() if _is_set(parameters.get(k))}
            if "cfg" in given or "guidance_scale" in given:  # one setting, two spellings
                fields.pop("cfg", None)
                fields.pop("guidance_scale", None)
            fields.update(given)
            if _is_set(layer.get("negative_prompt")):
                fields["negative_prompt"] = layer["negative_prompt"]
        fields.update(self._lora(image))
        for name in ("output_path", "task_id", "seed"):
            if _is_set(tweet.get(name)):
                fields[name] = tweet[name]
        kept = {k: tweet[k] for k in _KEPT if _is_set(tweet.get(k))}
        if _is_set(self._persona.get("name")):
            kept["persona"] = self._persona["name"]
        fields["metadata"] = kept
        return fields

    def _lora(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """The tweet's LoRA, else the persona's; a tweet may change the strength alone."""
        own, persona = _section(image, "lora_params"), _section(self._persona, "lora")
        for name, section in (("lora_params", own), ("lora", persona)):
            _check_spelling(name, section, _LORA)
            if "model_path" not in section and set(_set_only(section)) - set(_LORA):
                raise InputError(f"{name}: has no model_path (found {shown(list(section)[:6])}).")
        chosen = own if _is_set(own.get("model_path")) else persona
        if not _is_set(chosen.get("model_path")):
            return {}
        fields = {"lora_path": chosen["model_path"]}
        for layer in (chosen, own):
            if _is_set(layer.get("strength")):
                fields["lora_strength"] = layer["strength"]
        return fields

    def _prompt(self, source: Mapping[str, Any]) -> Any:
        for name in self._fields:
            if _is_set(source.get(name)):
                return source[name]
        hint = misspelt(source, self._fields, PROMPT_SOURCES, ALIKE)
        raise InputError(f"has no prompt: {' / '.join(self._fields)} missing or empty{hint}")


def _section(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A sub-object that real files leave out, empty or null."""
    value = holder.get(key)
    if not _is_set(value):
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key}: expected an object, found {shown(value)}.")
    return value


def _check_spelling(name: str, section: Mapping[str, Any], known: Collection[str]) -> None:
    """Real files have keys of other programs, too: only what looks like one of ours is refused."""
    for key in section:
        near = get_close_matches(key, known, 1, ALIKE)
        if near and key not in known and near[0] not in section:
            raise InputError(f"{name}.{key}: unknown key; did you mean {near[0]!r}?")


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _set_only(section: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in section.items() if _is_set(v)}


def _file_name(name: Any) -> str:
    """`name` as part of a file name: letters and digits of any script, the rest as `_`."""
    if not isinstance(name, str):
        return ""
    return re.sub(r"[^\w-]+", "_", name).strip("_")[:MAX_NAME]
