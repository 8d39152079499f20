"""How edits are named in a folder; each way has a file in `layouts` that registers it."""

from abc import ABC, abstractmethod
from pathlib import PurePosixPath

from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.rows import file_name
from core.registry import Registry
from core.store.outputs import PICTURE_SUFFIXES

MODEL = "<model>"
"""A part of a place that stands for the name of the model, where a layout has it on the way."""


class Layout(ABC):
    """One way to name the edits of one model.

    Attributes:
        suffixes: of the files; the first one is the usual.
    """

    suffixes: tuple[str, ...]

    @abstractmethod
    def place(self, pair: Pair) -> PurePosixPath:
        """Where the edit of a pair lies, without suffix.

        It begins at the folder of one model's edits, or above it: then `MODEL` is a part of it.
        """

    def suffixes_of(self, pair: Pair) -> tuple[str, ...]:
        """The suffixes of one pair's edit, where they depend on the pair."""
        del pair
        return self.suffixes


class OfficialLayout(Layout):
    """A layout that the scripts of a benchmark read, so that edits can be written in it.

    Attributes:
        suffixes: that the scripts read; the first one is written where an edit has none of them.
    """

    def home(self, model: str) -> PurePosixPath:
        """The folder at which places begin, below the folder that the scripts are given."""
        return PurePosixPath(model)

    def source_place(self, pair: Pair) -> PurePosixPath | None:
        """Where the scripts want the source of a pair, as a PNG beside the edits, if they do."""
        del pair
        return None

    @abstractmethod
    def command(self, folder: str, model: str) -> str:
        """How the benchmark's scorer is called for a folder with a model's edits."""


LAYOUTS: Registry[Layout] = Registry("layout", "apps.edit_benchmark.layouts")
"""One file per way to name edits; each registers itself with `layout.LAYOUTS`."""


def official_layout(name: str) -> OfficialLayout:
    """A layout in which edits can be written.

    Raises:
        InputError: there is none of that name.
    """
    layout = LAYOUTS[name]
    assert isinstance(layout, OfficialLayout)
    return layout


def official_names() -> list[str]:
    """The layouts in which edits can be written."""
    return [name for name in LAYOUTS if isinstance(LAYOUTS[name], OfficialLayout)]


def key_of(pair: Pair) -> str:
    """The name that the data gives a pair, as one part of a path."""
    key = str(pair.metadata.get("key") or pair.given_id or pair.pair_id)
    return key if "/" not in key and key.strip(".") else file_name(key)


def picture_name(pair: Pair, field: str) -> PurePosixPath:
    """The name of a pair's source picture, as one part of a path, as a field of its row has it.

    Scripts that call an edit as its source take the name with its suffix. It is a PNG where that
    is no format of edits, and has the pair's own name where there is no such field.
    """
    named = pair.metadata.get(field)
    name = PurePosixPath(named if isinstance(named, str) else "").name
    picture = PurePosixPath(name if name.strip(".") else f"{key_of(pair)}.png")
    known = picture.suffix.lower() in PICTURE_SUFFIXES
    return picture if known else PurePosixPath(f"{picture}.png")


def of_model(place: PurePosixPath, model: str) -> PurePosixPath:
    """A place with the name of the model in it."""
    return PurePosixPath(*(model if part == MODEL else part for part in place.parts))


def before_model(place: PurePosixPath) -> PurePosixPath | None:
    """The way to the folder of the models; None where the model is no part of the place."""
    parts = place.parts
    return PurePosixPath(*parts[: parts.index(MODEL)]) if MODEL in parts else None
