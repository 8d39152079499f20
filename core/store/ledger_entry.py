"""What the ledger keeps of one task, as an object and as a row of its table."""

import json
import sqlite3
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from core.paths import on_disk, printable
from core.store.outputs import OutputPath
from core.tasks import Result, Status, Task, task_to_json

State = Literal["pending", "leased", "done", "failed", "quarantined"]


@dataclass(frozen=True)
class Entry:
    """What the ledger keeps of one task."""

    key: str
    position: int
    task_id: str
    output_path: str | None
    fingerprint: str | None
    state: State
    task: dict[str, Any] = field(default_factory=dict)
    worker: str | None = None
    error: str | None = None
    elapsed: float = 0.0
    size: int | None = None
    sha256: str | None = None
    used: dict[str, Any] = field(default_factory=dict)


class Recordable(Protocol):
    """What a ledger needs to know of a task: see `core.intake.admission.Admitted`."""

    @property
    def position(self) -> int: ...
    @property
    def task(self) -> Task: ...
    @property
    def task_id(self) -> str: ...
    @property
    def output(self) -> OutputPath: ...
    @property
    def fingerprint(self) -> str: ...


def entry_for(admitted: Recordable, state: State, **fields: object) -> Entry:
    """The ledger's entry for an admitted task."""
    return Entry(
        key=admitted.output.key,
        position=admitted.position,
        task_id=admitted.task_id,
        output_path=admitted.output.shown,
        fingerprint=admitted.fingerprint,
        state=state,
        task=task_to_json(admitted.task),
        **fields,  # type: ignore[arg-type]
    )


def result_of(
    admitted: Recordable,
    status: Status,
    worker: str | None = None,
    error: str | None = None,
    elapsed: float = 0.0,
    attempts: int = 0,
    cause: str | None = None,
) -> Result:
    """The one result of a task."""
    return Result(
        position=admitted.position,
        task_id=admitted.task_id,
        status=status,
        output_path=admitted.output.path if status == "done" else None,
        elapsed=elapsed,
        error=error,
        worker=worker,
        attempts=attempts,
        seed=admitted.task.seed,
        cause=cause,
    )


def recorded_result(entry: Entry, folder: Path) -> Result | None:
    """What the ledger knows of the result of a task; None where it has none."""
    state = entry.state
    if state not in ("done", "failed", "quarantined"):
        return None
    seed = entry.task.get("seed")
    return Result(
        position=entry.position,
        task_id=entry.task_id,
        status=state,
        output_path=str(folder / on_disk(str(entry.output_path))) if state == "done" else None,
        elapsed=entry.elapsed,
        error=entry.error,
        worker=entry.worker,
        seed=seed if isinstance(seed, int) else None,
    )


COLUMNS = [
    "key",
    "batch",
    "position",
    "task_id",
    "output_path",
    "fingerprint",
    "task",
    "state",
    "worker",
    "error",
    "elapsed",
    "size",
    "sha256",
    "used",
    "updated",
]
UPSERT = (
    f"INSERT INTO tasks ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    "ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in COLUMNS if c != "key")
)


def to_row(entry: Entry, batch: int, now: float) -> list[Any]:
    """Values for `UPSERT`."""
    values = {
        **vars(entry),
        "batch": batch,
        "updated": now,
        # An error may quote a path that is no text, which SQLite would refuse.
        "error": entry.error and printable(entry.error),
        "task": json.dumps(entry.task),
        "used": json.dumps(entry.used),
    }
    return [values[c] for c in COLUMNS]


def from_row(row: sqlite3.Row) -> Entry:
    """The entry of a row.

    Raises:
        ValueError: the row is not what this program writes, as in a damaged file.
    """
    try:
        values = [row[name] for name in _FIELDS]
        values[_TASK], values[_USED] = json.loads(values[_TASK]), json.loads(values[_USED])
    except (IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"no entry: {error!r}") from None
    for (name, kinds), value in zip(_FIELDS.items(), values, strict=True):
        if not isinstance(value, kinds):
            raise ValueError(f"{name} is {value!r}")
    entry = Entry(*values)
    if entry.state not in _STATES:
        raise ValueError(f"state is {entry.state!r}")
    return entry


_STATES = get_args(State)
_TEXT = (str, type(None))
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "key": str,
    "position": int,
    "task_id": str,
    "output_path": _TEXT,
    "fingerprint": _TEXT,
    "state": str,
    "task": dict,
    "worker": _TEXT,
    "error": _TEXT,
    "elapsed": (int, float),
    "size": (int, type(None)),
    "sha256": _TEXT,
    "used": dict,
}
_TASK, _USED = list(_FIELDS).index("task"), list(_FIELDS).index("used")
assert list(_FIELDS) == [f.name for f in fields(Entry)]
