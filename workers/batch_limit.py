"""How many pictures fit into the device's memory at once, learned from those before."""

import torch

SAFETY = 0.85  # of the free memory


class BatchLimit:
    """Begins with one picture where memory can be measured; an out-of-memory error halves it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bytes_per_pixel: float | None = None
        self._most = 1024
        self._before = 0
        self._tried = 1

    def pictures(self, pixels: int) -> int:
        """That may be drawn at once, each of so many pixels."""
        if self._device.type != "cuda":
            return self._most
        if self._bytes_per_pixel is None:
            return 1
        free, _ = torch.cuda.mem_get_info(self._device)
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        fitting = int(SAFETY * (free + idle) / (self._bytes_per_pixel * pixels))
        return max(1, min(self._most, fitting))

    def begin(self, count: int) -> None:
        """So many pictures are about to be drawn."""
        self._tried = count
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    def end(self, pixels: int) -> None:
        """They are drawn; learn what they took."""
        if self._device.type == "cuda":
            taken = torch.cuda.max_memory_allocated(self._device) - self._before
            each = taken / (self._tried * pixels)
            self._bytes_per_pixel = max(self._bytes_per_pixel or 0.0, each)

    def out_of_memory(self) -> None:
        """The last attempt was too much."""
        self._most = max(1, self._tried // 2)
