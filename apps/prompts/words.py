"""What columns and keys are called that stand for the fields of a task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import InputError
from core.intake import edit_fields, spellings
from core.intake.picture_settings import read_layer
from core.intake.settings_layer import merged
from core.validation import shown


@dataclass(frozen=True)
class Words:
    """The names by which one command's readers know its fields.

    Attributes:
        text: the field without which there is no task, which a line by itself is.
        wording: the field that says in words what is wanted; it may hold alternatives.
        thing: what a line by itself is called: the usual name of `text`.
        lists: keys of a document under which the list of its tasks may stand.
        named: a task that a document calls by a name, from the name and what stands under it.
        shown: fields that messages about names of pictures suggest.
        asks: whether an object with such a key is a task, and not a list of tasks by their names.
        field_of: the field that a key or a column means, None for one that means none.
        columns: further names of columns in tables, by their plain form; each gives a field
            that no other column of its table gives.
        unusual: the name that an unknown column may be a misspelling of, or None.
        settings_of: the fields of a task that a setting's name and value, a text, give. Raises
            InputError where there is no such setting, or it cannot have this value.
    """

    text: str
    wording: str
    thing: str
    lists: tuple[str, ...]
    named: Callable[[str, Any], Any]
    shown: tuple[str, ...]
    asks: Callable[[str], bool]
    field_of: Callable[[str], str | None]
    columns: Mapping[str, str]
    unusual: Callable[[str], str | None]
    settings_of: Callable[[str, str], Mapping[str, Any]]

    def of_column(self, name: str) -> str | None:
        """The field that a column means."""
        return self.field_of(name) or self.columns.get(spellings.plain(name))


def _field_of_picture(key: str) -> str | None:
    source = spellings.prompt_source(key)
    if source is not None:
        return "tweet_text" if source == "tweet_text" else "prompt"
    if spellings.container(key) == "lora":
        return "lora"
    return spellings.setting(key)


def _asks_for_a_picture(key: str) -> bool:
    return (
        spellings.prompt_source(key) is not None or spellings.container(key) == "image_generation"
    )


def _settings_of_picture(key: str, value: str) -> Mapping[str, Any]:
    from core.intake.kinds.generate import GenerateKind  # files need nothing of it

    field = spellings.setting(key)
    if field in (None, "output_path", "task_id", "metadata"):
        near = spellings.meant(key)
        known = "; did you mean " + repr(near) + "?" if near else "; docs/TWEETS.md lists them all."
        raise InputError(f"{shown(key)} is no setting of a picture{known}")
    fields = merged([read_layer({key: value})])
    if not fields:  # a strength is one of a LoRA elsewhere
        fields = {str(field): value}
    task = GenerateKind().parse({"prompt": "x", "lora_path": "x", **fields})
    return {name: getattr(task, name) for name in fields}


def _plain(names: Mapping[str, str]) -> dict[str, str]:
    return {
        spellings.plain(name): field for field, words in names.items() for name in words.split()
    }


def _named_prompt(name: str, entry: Any) -> Any:
    entry = {"prompt": entry} if isinstance(entry, str) else entry
    return {"task_id": name, **entry}


PICTURES = Words(
    text="prompt",
    wording="prompt",
    thing="prompt",
    lists=("tweets", "prompts"),
    named=_named_prompt,
    shown=("id", "index", "prompt", "lora", "seed"),
    asks=_asks_for_a_picture,
    field_of=_field_of_picture,
    columns=_plain(
        {
            "prompt": "text caption prompts",
            "task_id": "id",
            "output_path": "output file_name file image",
        }
    ),
    unusual=spellings.meant,
    settings_of=_settings_of_picture,
)
"""Of pictures that are drawn from prompts; docs/TWEETS.md shows them."""


def _asks_for_an_edit(key: str) -> bool:
    return edit_fields.edit_field(key) in ("source_images", "instruction")


def _named_edit(name: str, entry: Any) -> Any:
    """A picture and its instruction, a picture and its fields, or an id and all of them."""
    if isinstance(entry, str):
        return {"source_images": name, "instruction": entry}
    has_picture = any(edit_fields.edit_field(key) == "source_images" for key in entry)
    return {"task_id" if has_picture else "source_images": name, **entry}


def _settings_of_edit(key: str, value: str) -> Mapping[str, Any]:
    from core.intake.kinds.edit import EditKind  # files need nothing of it

    field = edit_fields.edit_field(key)
    if field in (None, "output_path", "task_id", "metadata", "source_images", "references", "mask"):
        near = edit_fields.meant(key)
        known = (
            "; did you mean " + repr(near) + "?" if near else "; docs/EDITING.md lists them all."
        )
        raise InputError(f"{shown(key)} is no setting of an edit{known}")
    fields = edit_fields.read_edit({key: value})
    base = {"instruction": "x", "source_images": ["x"], "lora_path": "x"}
    task = EditKind().parse({**base, **fields})
    return {name: getattr(task, name) for name in fields}


EDITS = Words(
    text="source_images",
    wording="instruction",
    thing="picture",
    lists=("edits", "pictures"),
    named=_named_edit,
    shown=("id", "index", "picture", "instruction", "lora", "seed"),
    asks=_asks_for_an_edit,
    field_of=edit_fields.edit_field,
    columns=_plain({"task_id": "id pair_id", "output_path": "output"}),
    unusual=edit_fields.meant,
    settings_of=_settings_of_edit,
)
"""Of pictures that are edited; docs/EDITING.md shows them."""
