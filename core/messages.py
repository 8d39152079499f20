"""What main and a worker say to each other: frozen dataclasses in code, JSON on the pipe.

Named for their receiver's point of view: main sends `Load`, `Keep`, `Lease` and `Stop`; a worker
answers with the others, and so does the process that fetches a model. A worker's message stays
below PIPE_BUF (4,096 bytes on Linux), so that the kernel writes it whole or not at all, however
the worker dies.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from core.lora_stack import CheckedLora, counting, hashes_of
from core.tasks import Task, task_from_json, task_to_json

MAX_TEXT_BYTES = 2_000  # of one free text in a worker's message, after JSON escapes
MAX_NAME_BYTES = 600  # of a task's name beside such a text
MOST_PREVIEWS = 3  # of one task

MANY_LORAS = 24  # hashes in a message that leave room for a free text of full length
HASH_BYTES = 68  # of a SHA-256 in a list, with its quotes, comma and space

KeepWay = Literal["load", "pin", "unload"]
FailureKind = Literal["input", "lora", "exception", "out_of_memory", "device", "storage", "error"]
"""exception: one of the program or of a library, which another try would only repeat. device: the
CUDA context is lost and the worker must go. storage: the disk refused a write."""
LASTING: frozenset[FailureKind] = frozenset({"input", "exception"})
"""Of a model's load: no other try would end in another way."""


@dataclass(frozen=True)
class Load:
    """Permission to load the model; `Loaded` or `LoadFailed` gives the permission back.

    Attributes:
        folder: where the files of a hub's model lie; empty for other models.
    """

    folder: str = ""


@dataclass(frozen=True)
class Keep:
    """Hold a LoRA before a task asks for it, or hold it no more; `Kept` answers.

    Attributes:
        path: where the file lies.
        way: `load`: until others displace it, as one that a task brought. `pin`: whatever else is
            used. `unload`: not at all, until a task brings it again.
    """

    sha256: str
    path: str
    way: KeepWay


@dataclass(frozen=True)
class Lease:
    """One attempt at one task.

    Attributes:
        lora_sha256: content hash of the task's `lora_path`.
        files: content hashes, by path, of the pictures that the task reads.
        partial_path: where the worker writes the result; only main gives it its final name.
        more_follow: the next lease is on its way and may run together with this one.
        loras_sha256: content hashes of the task's `loras`, in their order.
        places: where the worker finds, or writes, files that are elsewhere for it than their names
            say; the names are what its record tells.
        previews: how many small pictures of the denoising the worker shows meanwhile. They are no
            part of the task: its fingerprint, record and pixels do not know of them.
    """

    lease_id: str
    attempt: int
    task: Task
    lora_sha256: str | None
    fingerprint: str
    partial_path: str
    files: dict[str, str] = field(default_factory=dict)
    more_follow: bool = False
    loras_sha256: tuple[str, ...] = ()
    previews: int = 0
    places: dict[str, str] = field(default_factory=dict)

    def at(self, path: str) -> str:
        """Where one of its files is for the worker."""
        return self.places.get(path, path)

    @property
    def loras(self) -> tuple[CheckedLora, ...]:
        """LoRAs that take part in the picture, in the order in which they are applied."""
        loras = counting(self.task, hashes_of(self.lora_sha256, self.loras_sha256))
        return tuple(replace(lora, path=self.at(lora.path)) for lora in loras)

    @property
    def task_name(self) -> str:
        """What users call the task."""
        return self.task.task_id or Path(self.task.output_path or self.partial_path).stem


@dataclass(frozen=True)
class Stop:
    """The poison pill: finish what is being saved, then leave."""


@dataclass(frozen=True)
class Ready:
    """The worker is up, has its device, and has no model yet."""

    pid: int
    device_name: str
    device_uuid: str
    visible_devices: str | None
    boot_seconds: float


@dataclass(frozen=True)
class BootFailed:
    """The worker cannot use its device, or cannot import its model's code; it ends itself."""

    kind: FailureKind
    error: str


@dataclass(frozen=True)
class Loaded:
    model_class: str
    seconds: float


@dataclass(frozen=True)
class LoadFailed:
    """The model could not be loaded. `everywhere`: no worker of this run could load it."""

    kind: FailureKind
    error: str
    everywhere: bool = False


@dataclass(frozen=True)
class Compiling:
    """The model is being compiled before the device begins what it runs: that takes a while."""


@dataclass(frozen=True)
class StepsDone:
    """How far the device is with a lease, and with those that it draws together with it.

    For the user's eyes alone: it comes rarely, is dropped where the pipe is full, and moves no
    deadline.
    """

    lease_id: str
    done: int
    total: int


@dataclass(frozen=True)
class Preview:
    """A picture of what a lease has come to lies complete at `core.store.outputs.preview_of`.

    Attributes:
        number: 1 for the lease's first; it names the file.
        step: of `total`, after which the picture was taken.
    """

    lease_id: str
    number: int
    step: int
    total: int


@dataclass(frozen=True)
class Generated:
    """The device is done with this lease; its result is still being encoded and written.

    `seconds` is the lease's share of the device's time, `waited` how long the device had nothing
    to do before it. `lora_loads` and `lora_switches` are what this task cost.
    """

    lease_id: str
    seconds: float
    waited: float = 0.0
    lora_loads: int = 0
    lora_switches: int = 0
    resident_loras: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kept:
    """What came of a `Keep`.

    Attributes:
        seconds: that it took.
        kind: of the failure, if the LoRA is not held as it should be; else None. After that of a
            device the worker ends itself.
        error: why it is so.
    """

    sha256: str
    seconds: float
    lora_loads: int = 0
    lora_switches: int = 0
    resident_loras: list[str] = field(default_factory=list)
    kind: FailureKind | None = None
    error: str = ""


@dataclass(frozen=True)
class Done:
    """The result lies complete and synced at the lease's `partial_path`."""

    lease_id: str
    size: int
    sha256: str
    elapsed: float
    used: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """An attempt ended in an error. `leaving`: the worker ends itself after this."""

    lease_id: str
    kind: FailureKind
    error: str
    elapsed: float = 0.0
    leaving: bool = False
    resident_loras: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Log:
    """A line of the worker's own for the log; `task` is what it was about, or empty."""

    level: str
    text: str
    task: str = ""


@dataclass(frozen=True)
class LibraryWarning:
    """What a library had to say while `task` ran; main logs each text once."""

    level: str
    text: str
    task: str = ""


@dataclass(frozen=True)
class PromptCut:
    """A text of `task` is longer than the model takes; `text` says where it is cut."""

    text: str
    task: str


@dataclass(frozen=True)
class Fetching:
    """Bytes of a hub's model that are on the disk, of those that are needed."""

    done: int
    total: int


@dataclass(frozen=True)
class FetchPause:
    """The hub is asked again in so many seconds; nothing comes meanwhile."""

    seconds: float


@dataclass(frozen=True)
class Fetched:
    """The model's files lie in a folder, all of them."""

    folder: str


@dataclass(frozen=True)
class FetchRefused:
    """The model cannot be had; another try would not change it."""

    error: str


ToWorker = Load | Keep | Lease | Stop
ToMain = (
    Ready
    | BootFailed
    | Loaded
    | LoadFailed
    | Compiling
    | StepsDone
    | Preview
    | Generated
    | Kept
    | Done
    | Failed
    | Log
    | LibraryWarning
    | PromptCut
    | Fetching
    | FetchPause
    | Fetched
    | FetchRefused
)

_TYPES = {
    t.__name__: t
    for t in (
        *(Load, Keep, Lease, Stop),
        *(Ready, BootFailed, Loaded, LoadFailed, Compiling, StepsDone, Preview, Generated),
        *(Kept, Done, Failed),
        *(Log, LibraryWarning, PromptCut),
        *(Fetching, FetchPause, Fetched, FetchRefused),
    )
}


def encode(message: ToWorker | ToMain) -> bytes:
    fields = dict(vars(message))  # `asdict` would copy every value, at ten times the cost
    if isinstance(message, Lease):
        fields["task"] = task_to_json(message.task)
    return json.dumps({"type": type(message).__name__, **fields}).encode()


def decode(data: bytes) -> Any:
    fields = json.loads(data.decode())  # which saves a look for other encodings
    kind = _TYPES[fields.pop("type")]
    if kind is Lease:
        fields["task"] = task_from_json(fields["task"])
        fields["loras_sha256"] = tuple(fields["loras_sha256"])
    return kind(**fields)


def room_beside(loras: Sequence[str]) -> int:
    """Bytes for a free text in a message that names these LoRAs by their hashes, too."""
    return MAX_TEXT_BYTES - HASH_BYTES * max(0, len(loras) - MANY_LORAS)


def clip(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Shorten `text` so that its JSON form takes at most `limit` bytes."""
    while len(json.dumps(text)) > limit:
        text = text[: int(len(text) * 0.8)].rstrip() + "…"
    return text
