"""The settings of a picture, found wherever people put them in an object.

An object (a tweet, a persona, a task) has several places for settings, one inside of the other.
Each place says a setting once; the innermost place that says it wins.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from core.errors import InputError
from core.intake import spellings
from core.intake.lora_values import are_numbers, as_in_a_file, is_pair, listed
from core.intake.setting_values import Given, is_empty, is_number, is_seed, is_set, is_size, sides
from core.intake.settings_layer import GUIDANCE, OF_LORAS, Layer, Place, lora_of, names_files
from core.validation import shown

USUAL_NAMES = [names[0] for names in spellings.SETTINGS.values()]  # that messages suggest
_SWITCHED_OFF = "switched off"  # what a LoRA says that is not enabled, instead of its file
_OWN_NAMES = {*spellings.SETTINGS, *spellings.PROMPTS, *spellings.CONTAINERS, "lora_params"}
_MOST_OF_A_BODY = 256  # a person's height in centimetres is less, a picture's in pixels is not


def read_layer(holder: Mapping[Any, Any], free: bool = False, of_persona: bool = False) -> Layer:
    """The settings of an object with all that stands inside of it.

    Args:
        free: texts of any kind stand beside the settings. Then a key counts under an alias only
            with a value that the setting can have, and only what looks like a setting counts as
            passed over.
        of_persona: then `height` may be the height of a person.

    Raises:
        InputError: a place says two things, a section is no object, or a key is misspelt.
    """
    layer = Layer()
    for kind in ("image_generation", "generation_params"):
        for key, section in _sections(holder, kind):
            inner = _Reader(f"{key}.", layer)
            if kind == "image_generation":
                for name, deeper in _sections(section, "generation_params"):
                    layer.places.append(_Reader(f"{key}.{name}.", layer).place(deeper))
                layer.places.append(inner.place(section, inside=("generation_params",)))
            else:
                layer.places.append(inner.place(section))
    own = _Reader("", layer, free, of_persona)
    layer.places.append(own.place(holder, inside=("image_generation", "generation_params")))
    return layer


def named_fields(task: Mapping[Any, Any]) -> dict[Any, Any]:
    """The fields of GenerateTask that a task means; keys that mean nothing stay as they are.

    Raises:
        InputError: it says one setting twice.
    """
    place, layer = Place(), Layer()
    reader, fields = _Reader("", layer), {}
    for key, value in task.items():
        of_lora = spellings.container(key) == "lora" or spellings.setting(key) == "lora_path"
        value = as_in_a_file(value) if of_lora or isinstance(value, PurePath) else value
        if spellings.prompt_source(key) in ("scene_hint", "tweet_text"):
            fields[key] = value  # of tweets alone
        elif is_set(value) and not reader.take(place, key, value, task):
            fields[key] = value
    if layer.passed_over:
        raise InputError(f"lora: {shown(layer.passed_over[0])}: unknown key.")
    named = names_files(place)
    fields |= {n: g.value for n, g in place.settings.items() if not (named and n in OF_LORAS)}
    fields |= lora_of([Layer([place])])
    for source in ("positive_prompt", "prompt"):
        if source in place.prompts:
            fields["prompt"] = place.prompts[source]
    return fields


class _Reader:
    """Reads places of one layer; `prefix` says in messages where they stand."""

    def __init__(
        self, prefix: str, layer: Layer, free: bool = False, of_persona: bool = False
    ) -> None:
        self._prefix = prefix
        self._layer = layer
        self._free = free
        self._of_persona = of_persona

    def place(self, holder: Mapping[Any, Any], inside: Sequence[str] = ()) -> Place:
        """What `holder` says itself; sections of the kinds `inside` are read elsewhere."""
        place = Place()
        for key, value in holder.items():
            if not is_set(value):
                continue
            section = isinstance(value, Mapping) or is_empty(value)
            if section and spellings.container(key) in inside:
                continue
            if not self.take(place, key, value, holder) and not is_empty(value):
                self._pass_over(key, holder)
        return place

    def take(self, place: Place, key: Any, value: Any, holder: Mapping[Any, Any]) -> bool:
        """Take what `holder` says under `key`; False if it means nothing here."""
        given = Given(value, f"{self._prefix}{key}")
        name, source = spellings.setting(key), spellings.prompt_source(key)
        several = name == "lora_path" and isinstance(value, list)
        if several or (spellings.container(key) == "lora" and self._may_be(given, key, "lora")):
            for part_name, part in self._lora_parts(given):
                if part_name == _SWITCHED_OFF:
                    place.without_lora = True
                else:
                    place.put(part_name, part)
        elif spellings.holds_strengths(key) and are_numbers(value):
            place.put("lora_strength", given)
        elif name is not None and self._may_be(given, key, name, holder):
            self._put(place, name, given)
        elif source is not None and self._may_be(given, key, source):
            self._put_prompt(place, source, key, value)
        else:
            return False
        return True

    def _put(self, place: Place, name: str, given: Given) -> None:
        if name == "size":
            for side, length in sides(given):
                place.put(side, Given(length, given.key))
        elif name != "metadata" or not is_empty(given.value):
            place.put(name, given)

    def _put_prompt(self, place: Place, source: str, key: str, value: Any) -> None:
        """The usual name comes before its aliases."""
        if spellings.plain(key) == spellings.plain(source):
            place.prompts[source] = value
        else:
            place.prompts.setdefault(source, value)

    def _lora_parts(self, given: Given) -> Iterator[tuple[str, Given]]:
        """File and strength of a LoRA in any of its usual forms; of several, the list of them."""
        value, key = listed(given.value), given.key
        if not isinstance(value, list):
            yield from self._one_lora(given)
            return
        loras = [part for part in value if is_set(part) and not is_empty(part)]
        if is_pair(loras):
            loras = [loras]
        several = len(loras) > 1
        found = [
            list(self._one_lora(Given(part, f"{key}[{place}]" if several else key)))
            for place, part in enumerate(loras)
        ]
        on = [parts for parts in found if parts and parts[0][0] != _SWITCHED_OFF]
        if len(on) == 1:
            yield from on[0]
        elif on:
            yield "loras", Given([_as_object(parts) for parts in on], key)
        elif any(found):
            yield _SWITCHED_OFF, given

    def _one_lora(self, given: Given) -> Iterator[tuple[str, Given]]:
        value, key = given.value, given.key
        if isinstance(value, str):
            yield "lora_path", given
        elif isinstance(value, Mapping):
            yield from self._lora_object(value, key)
        elif is_pair(value):
            yield "lora_path", Given(value[0], key)
            yield "lora_strength", Given(value[1], key)
        elif isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list):
            yield from self._one_lora(Given(value[0], key))
        else:
            raise InputError(
                f"{key}: expected a path, an object, or [path, strength], found {shown(value)}."
            )

    def _lora_object(self, value: Mapping[Any, Any], key: str) -> Iterator[tuple[str, Given]]:
        parts: dict[str, list[Given]] = {name: [] for name in spellings.LORA_FIELDS}
        others = []
        for inner, part in value.items():
            name = spellings.lora_field(inner)
            if name is not None:
                if name in ("file", "name") and isinstance(part, Mapping):  # InvokeAI's models
                    part = _name_in(part)
                if is_set(part):
                    parts[name].append(Given(part, f"{key}.{inner}"))
            elif is_set(part):
                others.append(inner)
        known = {spellings.lora_field(k) for k in value}
        for inner in others:
            self._refuse_misspelt(inner, value, f"{key}.{inner}", in_lora=True)
        if others and not known & {"file", "name"}:
            raise InputError(f"{key}: has no model_path (found {shown(list(value)[:6])}).")
        self._layer.passed_over += map(str, others)
        if any(part.value in (False, 0) for part in parts["enabled"]):
            yield _SWITCHED_OFF, Given(value, key)
            return
        for given in parts["file"] if "file" in known else parts["name"][:1]:
            yield "lora_path", given
        for given in parts["strength"]:
            yield "lora_strength", given

    def _pass_over(self, key: Any, holder: Mapping[Any, Any]) -> None:
        if self._free:
            known = spellings.setting(key) or spellings.container(key)
            if known or spellings.looks_like_a_setting(key):
                self._layer.passed_over.append(str(key))
            return
        self._refuse_misspelt(key, holder, f"{self._prefix}{key}")
        if self._prefix or spellings.is_foreign(key):
            self._layer.passed_over.append(str(key))
        else:
            self._layer.others[str(key)] = holder[key]

    def _refuse_misspelt(
        self, key: Any, holder: Mapping[Any, Any], where: str, in_lora: bool = False
    ) -> None:
        """Refuse a key that looks like one of ours that is not there beside it."""
        near = _meant(key, in_lora)
        if near is not None and not any(_alike(near, k, in_lora) for k in holder):
            raise InputError(f"{where}: unknown key; did you mean {near!r}?")

    def _may_be(
        self, given: Given, key: str, name: str, holder: Mapping[Any, Any] | None = None
    ) -> bool:
        """Whether a key in the midst of texts is the setting that it is called like."""
        if not self._free:
            return True
        value = given.value
        if name == "height" and self._of_persona and holder is not None:
            beside = any(
                spellings.setting(k) in ("width", "size") and is_size(Given(v, str(k)))
                for k, v in holder.items()
            )
            return beside or (is_number(value) and float(value) >= _MOST_OF_A_BODY)
        if name == "size":
            return not is_number(value) and is_size(given)  # 38 is a size of clothes
        if not _is_alias(key):
            return True
        if name == "seed":
            return is_seed(value)
        if name in (
            *GUIDANCE,
            "width",
            "height",
            "num_inference_steps",
            "lora_strength",
            "picture_quality",
        ):
            return is_number(value)
        if name == "lora":
            return isinstance(value, (str, list, Mapping))
        return isinstance(value, str)


def _sections(holder: Mapping[Any, Any], kind: str) -> Iterator[tuple[str, Any]]:
    """Objects inside of `holder` that are of a kind; empty ones count as left out."""
    for key, value in holder.items():
        if spellings.container(key) == kind and is_set(value) and not is_empty(value):
            if isinstance(value, Mapping):
                yield key, value
            elif spellings.plain(key) == spellings.plain(kind):
                raise InputError(f"{key}: expected an object, found {shown(value)}.")


def _is_alias(key: str) -> bool:
    """Whether `key` is another name than this project's own for what it means."""
    return key.casefold() not in _OWN_NAMES


def _meant(key: Any, in_lora: bool = False) -> str | None:
    return spellings.meant(key, in_lora) if isinstance(key, str) else None


def _alike(near: str, key: Any, in_lora: bool) -> bool:
    """Whether `key` says what the name `near` says."""
    if not isinstance(key, str):
        return False
    kinds = [spellings.lora_field] if in_lora else [
        spellings.setting, spellings.prompt_source, spellings.container
    ]  # fmt: skip
    return any(kind(near) is not None and kind(near) == kind(key) for kind in kinds)


def _as_object(parts: Sequence[tuple[str, Given]]) -> dict[str, Any]:
    """One LoRA among several, in the words of `core.tasks.Lora`."""
    place = Place()
    for name, given in parts:
        place.put(name, given)
    if "lora_path" not in place.settings:
        raise InputError(f"{parts[0][1].key}: has no LoRA beside it.")
    return {name.removeprefix("lora_"): given.value for name, given in place.settings.items()}


def _name_in(model: Mapping[Any, Any]) -> Any:
    """The file or name of a model that is described by an object of its own."""
    for wanted in ("file", "name"):
        for key, value in model.items():
            if spellings.lora_field(key) == wanted and is_set(value):
                return value
    return None
