"""One row of the benchmark's input. What people preferred: `apps.edit_benchmark.preferences`."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from apps.edit_benchmark.categories import category_folder
from core.errors import InputError


@dataclass(frozen=True)
class Pair:
    """One picture (or several) and what to change.

    Attributes:
        pair_id: unique in its category, and fit for a file name.
        category: as the data gives it; in paths it is its `category_folder`.
        given_id: the id that the data gives it, if it gives one.
        problem: why the pair cannot be used, if it cannot.
        is_sketch: its row could not be read, and what else it is of than is said here is not known.
        language: of the instruction, as GEdit-Bench says it: en or cn; empty where unknown.
        intersection_exist: GEdit-Bench's mark of pairs that it has in every language; None where
            the data has no such marks.
        index: its place in the whole input, whatever part of it is run.
        data_set: the name under which the form that read it is registered.
        target_images: pictures of a right result, where the data has them.
        reference_images: further pictures that a judge may be shown.
        mask: a picture, white where the edit may change the source; empty where there is none.
        follows: `name` of the pair whose edit is the source of this one; such a pair has no source
            pictures of its own. Empty where it has.
        edited_image: an edit that the data brings along, which is scored as it is.
        subsets: names of the parts of its data set that it belongs to, such as a split.
        asked_by: subsets or languages; unless the user names all of them, the pair is left out.
        seed_by_id: its seed follows its name and not its place in the input.
        metadata: what else the data says of it; judges' questions may name these fields. What
            people said of edits is there in the form that `preferences` describes.
    """

    pair_id: str
    category: str
    instruction: str = ""
    source_images: tuple[str, ...] = ()
    problem: InputError | None = None
    is_sketch: bool = False
    language: str = "en"
    intersection_exist: bool | None = None
    index: int = 0
    data_set: str = ""
    target_images: tuple[str, ...] = ()
    reference_images: tuple[str, ...] = ()
    mask: str = ""
    follows: str = ""
    edited_image: str = ""
    given_id: str | None = None
    subsets: tuple[str, ...] = ()
    asked_by: tuple[str, ...] = ()
    seed_by_id: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The pair's place below a folder of edits or verdicts, which is also its name in logs."""
        return f"{category_folder(self.category)}/{self.pair_id}"

    @property
    def seed_offset(self) -> int:
        """What is added to a run's base seed to get the seed of this pair.

        By name it is the same in every selection, order and form of the same data.
        """
        if not self.seed_by_id:
            return self.index
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")
