"""What columns and keys are called that stand for the fields of a task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.intake import spellings


@dataclass(frozen=True)
class Words:
    """The names by which one command's readers know its fields.

    Attributes:
        text: the field without which there is no task, which a line by itself is.
        field_of: the field that a key or a column means, None for one that means none.
        columns: further names of columns in tables, by their plain form; each gives a field
            that no other column of its table gives.
        unusual: the name that an unknown column may be a misspelling of, or None.
    """

    text: str
    field_of: Callable[[str], str | None]
    columns: Mapping[str, str]
    unusual: Callable[[str], str | None]

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


def _plain(names: Mapping[str, str]) -> dict[str, str]:
    return {
        spellings.plain(name): field for field, words in names.items() for name in words.split()
    }


PICTURES = Words(
    text="prompt",
    field_of=_field_of_picture,
    columns=_plain(
        {
            "prompt": "text caption prompts",
            "task_id": "id",
            "output_path": "output file_name file image",
        }
    ),
    unusual=spellings.meant,
)
"""Of pictures that are drawn from prompts; docs/TWEETS.md shows them."""
