"""The error that stands for an entry which cannot be used."""

from core.errors import InputError


class BadEntry(InputError):
    """An entry that cannot be used; knows the id under which it is recorded."""

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id
