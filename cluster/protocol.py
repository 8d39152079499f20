"""What main, the bridge and the agents say to each other: frozen dataclasses, pickled.

Main's orders to an agent carry the life of the worker that they are for, a number that is never
given twice, so that what is said of one worker can not be taken for its successor's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.devices.device import Device
from core.engine.backend import Died, HungUp, Said
from core.messages import ToWorker
from core.settings import RaySettings, SupervisionSettings
from core.worker_spec import WorkerSpec

# -- orders: main to an agent ---------------------------------------------------------------------


@dataclass(frozen=True)
class Prepare:
    """Make ready for workers like this one."""

    spec: WorkerSpec


@dataclass(frozen=True)
class FetchModel:
    """Bring a hub's model to the node."""

    fetch: int
    spec: WorkerSpec


@dataclass(frozen=True)
class StopFetch:
    fetch: int


@dataclass(frozen=True)
class Start:
    """Start a worker, as soon as the node is ready for it."""

    slot: str
    life: int
    device: Device
    spec: WorkerSpec


@dataclass(frozen=True)
class Send:
    """Pass a message on to a worker."""

    slot: str
    life: int
    message: ToWorker


@dataclass(frozen=True)
class Kill:
    slot: str
    life: int


@dataclass(frozen=True)
class Forget:
    """Let go of a worker that does not die."""

    slot: str
    life: int


@dataclass(frozen=True)
class AskSilence:
    """Answer `Silent` when everything that the worker has said by now is on its way."""

    slot: str
    life: int
    question: int


@dataclass(frozen=True)
class AskProgress:
    """Answer `Progress`."""

    slot: str
    life: int


Order = Prepare | FetchModel | StopFetch | Start | Send | Kill | Forget | AskSilence | AskProgress

# -- reports: an agent to main --------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What the node's own backend reports of a worker."""

    slot: str
    life: int
    report: Said | HungUp | Died


@dataclass(frozen=True)
class HasRead:
    """A worker has read so many messages by now."""

    slot: str
    life: int
    messages: int


@dataclass(frozen=True)
class Silent:
    """Everything that a worker had said when it was asked came before this.

    Attributes:
        had: seconds for which it had had all that it was sent; 0 if it has not even now.
    """

    slot: str
    life: int
    question: int
    had: float = 0.0


@dataclass(frozen=True)
class Progress:
    slot: str
    life: int
    seen: object


@dataclass(frozen=True)
class FetchNews:
    """How far a hub's model is on the node.

    Attributes:
        folder: of its files there; None until it is complete.
        refusal: why it cannot be had there; None otherwise.
        done, total: bytes.
    """

    fetch: int
    folder: str | None = None
    refusal: str | None = None
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Remark:
    """A line for main's log."""

    level: str
    text: str


@dataclass(frozen=True)
class NotUsed:
    """Why a node, or some GPUs of it, are not used: its name, and the reason."""

    why: str


FromAgent = Told | HasRead | Silent | Progress | FetchNews | Remark

# -- main and the bridge --------------------------------------------------------------------------


@dataclass(frozen=True)
class Connect:
    """The first message to the bridge.

    Attributes:
        most: GPUs that the run wants at the most; None for all.
        device: the setting of that name.
        software: versions that nodes must have, as `cluster.software` knows them.
        run: a name that no other connection to a cluster has.
        again: the run had a bridge before, which has ended.
    """

    settings: RaySettings
    supervision: SupervisionSettings
    start_method: str
    device: Literal["auto", "cuda", "cpu"]
    most: int | None
    software: Mapping[str, str]
    run: str
    again: bool = False


@dataclass(frozen=True)
class For:
    """An order to a node's agent."""

    node: str
    order: Order


@dataclass(frozen=True)
class Node:
    """A machine of the cluster whose agent is there.

    Attributes:
        name: of the machine, told apart from others of the same name.
        devices: that Ray has given to this run, one each.
    """

    name: str
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Connected:
    """The nodes that are there at the start; others follow by `NodeJoined`.

    Attributes:
        cluster: what to call it.
        address: at which the next bridge finds it.
        not_used: nodes, or GPUs of them, that are not there, and why.
    """

    nodes: tuple[Node, ...]
    cluster: str
    address: str
    not_used: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The cluster cannot be used; the bridge ends."""

    why: str


@dataclass(frozen=True)
class NodeJoined:
    node: Node


@dataclass(frozen=True)
class NodeLeaves:
    name: str
    why: str


@dataclass(frozen=True)
class NodeLost:
    name: str
    why: str


@dataclass(frozen=True)
class Alive:
    """The bridge is there; it says so now and then, as one that is stopped says nothing."""


@dataclass(frozen=True)
class From:
    """A report of a node's agent."""

    node: str
    report: FromAgent


ToBridge = Connect | For
FromBridge = Connected | Refused | NodeJoined | NodeLeaves | NodeLost | NotUsed | Alive | From
