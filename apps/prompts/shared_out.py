"""The part of a run's inputs that is one driver's, where several share a file."""

from collections.abc import Iterator, Sized

from apps.prompts.selection import with_seed
from apps.prompts.shard import Shard
from core.intake.task_kinds import Inputs, TaskInput, rereadable


class SharedOut(Sized):
    """The inputs of one part, with the seeds of their places in the whole.

    Args:
        first_seed: of the first input of all; RANDOM leaves seeds to the run.
    """

    def __init__(self, inputs: Inputs, part: Shard, first_seed: int) -> None:
        self._inputs, self._part, self._first_seed = inputs, part, first_seed

    @property
    def rereadable(self) -> bool:
        """As the inputs are that they are made of."""
        return rereadable(self._inputs)

    def __len__(self) -> int:
        return max(0, -(-(len(self._inputs) - self._part.number + 1) // self._part.of))

    def __iter__(self) -> Iterator[TaskInput]:
        for index, given in enumerate(self._inputs):
            if index % self._part.of == self._part.number - 1:
                yield with_seed(given, index, self._first_seed)
