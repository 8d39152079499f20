"""How many pictures fit into the memory of the worker's GPUs at once, learned from those before."""

from collections.abc import Sequence

import torch

from workers.torch_device import memory_left

SAFETY = 0.85  # of the free memory


class BatchLimit:
    """Begins with one picture where memory can be measured; an out-of-memory error halves it."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = [device for device in devices if device.type == "cuda"]
        self._bytes_per_pixel: dict[torch.device, float] = {}
        self._most = 1024
        self._before: dict[torch.device, int] = {}
        self._tried = 1

    def pictures(self, pixels: int) -> int:
        """How many pictures of so many pixels may be drawn at once."""
        if self._devices and not self._bytes_per_pixel:
            return 1
        fitting = [
            int(SAFETY * memory_left(device) / (each * pixels))
            for device, each in self._bytes_per_pixel.items()
            if each > 0
        ]
        return max(1, min([self._most, *fitting]))

    def begin(self, count: int) -> None:
        """Note that so many pictures are about to be drawn."""
        self._tried = count
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)
            self._before[device] = torch.cuda.memory_allocated(device)

    def end(self, pixels: int) -> None:
        """Learn how much memory the pictures took, which are drawn."""
        for device in self._devices:
            taken = torch.cuda.max_memory_allocated(device) - self._before[device]
            each = taken / (self._tried * pixels)
            self._bytes_per_pixel[device] = max(self._bytes_per_pixel.get(device, 0.0), each)

    def out_of_memory(self) -> None:
        """The last attempt was too much."""
        self._most = max(1, self._tried // 2)
