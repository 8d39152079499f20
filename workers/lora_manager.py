"""Keeps LoRA adapters in memory and switches between them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from core.checkpoints.lora_files import content_hash
from core.errors import LoraError
from core.lora_paths import file_or_folder
from core.lora_stack import CheckedLora
from core.messages import Keep
from workers.errors import blames_no_file, classify
from workers.lora_pins import Pins

LONGEST_REASON = 1000  # characters


@dataclass
class LoraCounts:
    """What the manager did since it was last asked."""

    loads: int = 0
    switches: int = 0


class Loras(Protocol):
    """What a pipeline does with LoRAs."""

    @property
    def resident(self) -> list[str]:
        """Content hashes of those in memory, the least recently used first."""

    def take_counts(self) -> LoraCounts:
        """Loads and switches since the last call."""

    def use_stack(self, stack: Sequence[CheckedLora]) -> None:
        """Make exactly these LoRAs count for the next picture; their changes add up.

        Raises:
            LoraError: a file changed since it was checked, or does not fit the model. What
                memory, device or disk are to blame for is raised as it is.
        """

    def shrink(self) -> tuple[int, int]:
        """Drop every LoRA that is not in use, and keep half as many from now on as there were.

        Those that are pinned go as well, and are pinned no more: pictures come first.

        Returns:
            How many were dropped, and how many are kept at most.
        """

    def hold(self, sha256: str, path: Path, pinned: bool) -> None:
        """Have a LoRA in memory before a task uses it; pictures are as if it were not there.

        Args:
            pinned: it is not displaced by others.

        Raises:
            LoraError: as `use_stack`.
            MultiGPUError: it cannot be pinned beside those that are.
        """

    def let_go(self, sha256: str) -> None:
        """Take a LoRA out of memory, pinned or not, between two tasks."""

    def obey(self, order: Keep) -> None:
        """Hold a LoRA, or hold it no more.

        Raises:
            LoraError, MultiGPUError: see `hold`.
        """
        if order.way == "unload":
            self.let_go(order.sha256)
        else:
            self.hold(order.sha256, Path(order.path), order.way == "pin")


class LoraFile(Protocol):
    """A LoRA that was read, and that fits the pipeline."""

    def put_on(self, name: str) -> None:
        """Load it as the adapter `name`."""


class LoraLoader(Protocol):
    """What the manager needs of `workers.lora_adapter`, which needs torch."""

    def read(self, path: Path) -> LoraFile:
        """Raises whatever is wrong with the file; the pipeline is as before."""

    def remove(self, name: str) -> None:
        """Take the adapter `name` off the pipeline."""


class LoraManager(Loras):
    """Up to `capacity` adapters of one pipeline, known by content hash, least recently used out.

    The strength belongs to the task, not to the cache: it is set for every picture. Without
    a LoRA the adapters are disabled, which leaves exactly the base layers' arithmetic.

    Args:
        capacity: the LoRAs of one task are kept together, even where they are more.
        loader: for stand-ins of pipelines.
    """

    def __init__(
        self,
        pipeline: Any,
        capacity: int,
        log: Callable[[str, str], None],
        loader: LoraLoader | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._capacity = capacity
        self._log = log
        self._given_loader = loader
        self._refusals = Refusals(pipeline)
        self._resident: OrderedDict[str, str] = OrderedDict()  # sha256 -> adapter name
        self._active: frozenset[str] = frozenset()
        self._pins = Pins(log)
        self._enabled = True
        self._counts = LoraCounts()

    @property
    def resident(self) -> list[str]:
        return list(self._resident)

    def take_counts(self) -> LoraCounts:
        counts, self._counts = self._counts, LoraCounts()
        return counts

    def use_stack(self, stack: Sequence[CheckedLora]) -> None:
        if not stack:
            self._disable()
            return
        self._enable()  # first: what is loaded and does not come to be used, is disabled
        wanted = frozenset(lora.sha256 for lora in stack)
        for lora in stack:
            if lora.sha256 not in self._resident:
                self._load(lora.sha256, Path(lora.path), wanted)
        for lora in stack:
            self._resident.move_to_end(lora.sha256)
        self._make_room(0, wanted)
        names = [self._resident[lora.sha256] for lora in stack]
        self._pipeline.set_adapters(names, [lora.strength for lora in stack])
        self._counts.switches += self._active != wanted
        self._active = wanted

    def shrink(self) -> tuple[int, int]:
        self._capacity = fewer(self._capacity, len(self._resident))
        idle = [sha256 for sha256 in self._resident if sha256 not in self._active]
        for sha256 in idle:
            self._drop(sha256)
        self._pins.give_up(idle)
        return len(idle), self._capacity

    def hold(self, sha256: str, path: Path, pinned: bool) -> None:
        if pinned:
            self._pins.check_room(sha256, self._capacity)
        if sha256 in self._resident:
            self._resident.move_to_end(sha256)
        else:
            active = self._active
            self._enable()
            try:
                self._load(sha256, path, frozenset({sha256}))
            finally:
                self._disable()
                self._active = active & self._resident.keys()
        if pinned:
            self._pins.add(sha256, str(path))
        else:
            self._pins.remove(sha256)

    def let_go(self, sha256: str) -> None:
        self._pins.remove(sha256)
        if sha256 in self._active:
            self._disable()
        if sha256 in self._resident:
            self._drop(sha256)

    def _enable(self) -> None:
        if not self._enabled:
            self._pipeline.enable_lora()
            self._enabled = True

    def _disable(self) -> None:
        if self._resident and self._enabled:
            self._pipeline.disable_lora()
            self._enabled = False
        self._active = frozenset()

    def _make_room(self, coming: int, wanted: frozenset[str]) -> None:
        """Drop what was used longest ago, but nothing that is `wanted` or pinned."""
        for sha256 in leaving(self._resident, coming, self._capacity, wanted.union(self._pins)):
            self._drop(sha256)

    def _load(self, sha256: str, path: Path, wanted: frozenset[str]) -> None:
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise LoraError(f"{type(self._pipeline).__name__} takes no LoRAs.")
        check_unchanged(path, sha256)
        started = time.monotonic()
        with self._refusals.noted(sha256, path):
            file = self._loader.read(path)
        self._make_room(1, wanted)
        name = f"lora_{sha256[:16]}"
        try:
            with self._refusals.noted(sha256, path):
                file.put_on(name)
        except Exception as error:
            if classify(error)[0] != "device":  # a lost context has nothing to be cleaned
                self._forget_failed(name)
            raise
        self._resident[sha256] = name
        self._counts.loads += 1
        seconds = time.monotonic() - started
        shown = file_or_folder(str(path))
        self._log("DEBUG", f"LoRA {shown} loaded in {seconds:.2f} s, {len(self._resident)} held")

    @cached_property
    def _loader(self) -> LoraLoader:
        if self._given_loader is not None:
            return self._given_loader
        from workers.lora_adapter import PeftLoader  # torch and PEFT, which stand-ins do without

        return PeftLoader(self._pipeline, self._log)

    def _drop(self, sha256: str) -> None:
        self._loader.remove(self._resident.pop(sha256))

    def _forget_failed(self, name: str) -> None:
        """A load that broke half-way may have left layers of the adapter behind."""
        try:
            self._loader.remove(name)
        except Exception:
            # What is half there cannot be removed by name: start from a clean pipeline.
            self._pipeline.unload_lora_weights()
            self._resident.clear()
            self._active, self._enabled = frozenset(), True


def leaving(
    held: Collection[str], coming: int, capacity: int, wanted: Collection[str]
) -> list[str]:
    """Which LoRAs go so that others can come: those used longest ago, but none that is wanted.

    Args:
        held: the least recently used first.
    """
    over = len(held) + coming - capacity
    return [sha256 for sha256 in held if sha256 not in wanted][: max(0, over)]


def fewer(capacity: int, resident: int) -> int:
    """How many LoRAs to keep where so many were too many."""
    return max(1, resident // 2) if resident else capacity


class Refusals:
    """Files that a pipeline refused, so that many tasks with one of them do not read it again."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._reasons: dict[str, str] = {}  # by sha256

    @contextmanager
    def noted(self, sha256: str, path: Path | str) -> Iterator[None]:
        """Raises LoraError for what goes wrong inside, unless memory, device or disk are to blame.

        A file that was refused before is refused at once.
        """
        if sha256 in self._reasons:
            raise does_not_fit(path, self._pipeline, self._reasons[sha256])
        try:
            yield
        except Exception as error:
            if blames_no_file(error):
                raise
            reason = " ".join(str(error).split())[:LONGEST_REASON] or repr(error)
            if isinstance(error, ValueError):  # it would be the same again
                self._reasons[sha256] = reason
            raise does_not_fit(path, self._pipeline, reason) from error


def does_not_fit(path: Path | str, pipeline: Any, reason: str) -> LoraError:
    """Why a file cannot be used, in one line."""
    return LoraError(f"lora_path: {path} does not fit {type(pipeline).__name__}: {reason}")


def check_unchanged(path: Path, sha256: str) -> None:
    """Raises LoraError if the file is not the one that main checked; OSError if the disk fails."""
    try:
        found = content_hash(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise LoraError(f"lora_path: {path} cannot be read: {error.strerror}.") from None
    if found != sha256:
        raise LoraError(f"lora_path: {path} changed during the run; run the command again.")
