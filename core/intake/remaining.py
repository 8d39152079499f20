"""What is left of a large input: checked piece by piece, while workers draw what came first."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from core.errors import InputError
from core.intake.admission import Item
from core.intake.task_kinds import TaskInput
from core.tasks import Result, Status

FIRST = 1000  # inputs that are checked before anything is drawn: a fifth of a second
AT_ONCE = 250  # inputs that are planned together later on
ENDED = "The input has ended before this place."


class Intake(Protocol):
    """Turns inputs into tasks; see `core.batch_intake`."""

    def admit(self, position: int, given: TaskInput) -> Item: ...
    def name_of(self, position: int, given: TaskInput) -> str: ...
    def remade(self, items: Sequence[Item]) -> list[Item]: ...


class Remaining:
    """Inputs that nobody has looked at yet, in order. One thread uses it.

    Args:
        inputs: they are read once, and not kept.
        position: place of the first one in its batch.
        count: how many there are.
    """

    def __init__(
        self,
        inputs: Iterable[TaskInput],
        position: int,
        count: int,
        intake: Intake,
    ) -> None:
        self._inputs = iter(inputs)
        self._position = position
        self._left = count
        self._intake = intake
        self._unreadable = ENDED  # why there is no next input

    def __len__(self) -> int:
        return self._left

    def admit_some(self, most: int) -> list[Item]:
        """Check the next inputs."""
        return self._intake.remade([self._intake.admit(i, g) for i, g in self._next(most)])

    def close_some(self, status: Status, reason: str, most: int) -> list[Result]:
        """Give the next inputs a result without a look at what they ask for."""
        return [
            Result(i, self._intake.name_of(i, given), status, None, error=reason)
            for i, given in self._next(most)
        ]

    def _next(self, most: int) -> Iterator[tuple[int, TaskInput]]:
        for _ in range(min(most, self._left)):
            given = self._read()
            position, self._position = self._position, self._position + 1
            self._left -= 1
            yield position, given

    def _read(self) -> TaskInput:
        """The next input; what cannot be read has its place, like one that is no task."""
        try:
            for given in islice(self._inputs, 1):
                return given
        except InputError as error:
            self._unreadable = str(error)
        except Exception as error:
            self._unreadable = f"The input cannot be read: {error!r}."
        return InputError(self._unreadable)
