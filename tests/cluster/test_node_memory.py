"""A node's next worker waits for the GPU memory of the one before."""

from collections.abc import Sequence

from cluster.node_memory import PATIENCE, NodeMemory
from core.devices.device import Device

GPU = Device("cuda", 0, "GPU-a", node="b")
GIB = 1024**3


class Card:
    """A GPU with so many bytes in use, and a clock."""

    def __init__(self) -> None:
        self.used: int | None = GIB
        self.now = 0.0
        self.memory = NodeMemory(self.in_use, lambda: self.now)

    def in_use(self, devices: Sequence[Device]) -> int | None:
        assert [device.node for device in devices] == [""], "the driver knows its own machine alone"
        return self.used

    def starts(self, has_others: bool = False) -> bool:
        self.now += 0.2
        return self.memory.is_free(GPU, has_others)


def test_the_next_worker_starts_when_as_much_is_free_as_before_the_first() -> None:
    card = Card()
    assert card.starts()
    card.used = 20 * GIB
    assert not card.starts() and not card.starts()
    card.used = GIB
    assert card.starts()


def test_it_does_not_wait_for_ever_nor_where_others_share_the_gpu() -> None:
    card = Card()
    assert card.starts()
    card.used = 20 * GIB
    assert not card.starts()
    assert card.starts(has_others=True)
    card.now += PATIENCE
    assert card.starts()


def test_where_the_driver_does_not_tell_nobody_waits() -> None:
    card = Card()
    card.used = None
    assert card.starts() and card.starts()
