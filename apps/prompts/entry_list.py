"""The entries of a file, and what stands around them, without a look inside of an entry."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.intake import spellings


def _place_in_list(index: int) -> str:
    return f"tweet {index}"


class EntryList(Protocol):
    """Entries that may be iterated over more than once."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Entries:
    """What a file holds.

    Attributes:
        entries: JSON values; an InputError stands for a line or row that is none. Those of a large
            file are read when they are asked for.
        persona: empty where there is none.
        around: of an object that holds a list of entries, the rest.
        of_persona: the form with `tweets`, in which texts stand beside settings.
        places: where an entry stands, such as `row 3 (line 5)`; asked when it has just been read.
        by_id: an entry's own id names its picture, and the name of a picture may lack its ending.
    """

    entries: EntryList
    persona: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, Any] = field(default_factory=dict)
    of_persona: bool = False
    places: Callable[[int], str] = _place_in_list
    by_id: bool = False

    @property
    def names_places(self) -> bool:
        """Whether an entry has a place that every message about it names: a line or a row."""
        return self.places is not _place_in_list

    @property
    def name(self) -> Any:
        """The persona's."""
        names = {spellings.plain(str(key)): value for key, value in self.persona.items()}
        return self.persona.get("name", names.get("name"))
