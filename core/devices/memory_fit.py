"""Which memory mode a run's workers load their model in: what each one needs, and what there is.

All workers of a run take one mode, so that a picture is the same whichever of them draws it: the
GPU with the least free memory decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loguru import logger

from core.checkpoints.checkpoint import Checkpoint
from core.devices.device import Device
from core.devices.memory_abilities import Abilities
from core.devices.memory_needs import Need, gib, left_as_they_are, needs_of
from core.devices.working_memory import Demand
from core.errors import DeviceError, InputError
from core.memory_modes import FACTS, Memory, Mode, changes_pixels
from core.model_settings import Dtype

# What is worked with is estimated from above. So much less than a need may do: a mode that is asked
# for by name is tried then, with a warning. `auto` leaves it alone where another one fits.
MARGIN = 0.1


@dataclass(frozen=True)
class MemoryFit:
    """A mode for all workers of a run, and what else there is to know about it.

    Attributes:
        reason: one line for the log; empty where there is nothing to say.
        table: needs and free memory, in lines; empty where they are not known.
        same_pixels: modes that take less memory for the same pictures, for a worker that meets
            the end of its memory while it loads; none where the mode was asked for by name.
        other_pixels: the next one that changes pictures, for all workers together.
        smaller: modes that would fit, too.
        needs: bytes of GPU memory by mode.
    """

    mode: Mode
    reason: str = ""
    table: str = ""
    same_pixels: tuple[Mode, ...] = ()
    other_pixels: Mode | None = None
    smaller: tuple[Mode, ...] = ()
    needs: Mapping[Mode, int] = field(default_factory=dict)

    def refusal(self, device: Device, tried: Mode) -> str:
        """Need and have of a worker that met the end of its memory while it loaded.

        Args:
            tried: the mode in which it did, the last one.
        """
        needed = self.needs.get(tried)
        need = f"Memory mode {tried} needs {gib(needed)} GiB." if needed else ""
        have = f" {device.label} had {_have(device)} when the run began." if device.memory else ""
        left = [mode for mode in self.smaller if mode not in (self.mode, tried)]
        hint = f" memory: {_setting(left[0])} would fit." if left else ""
        return f"{need}{have}{hint}".strip()


class LackOfMemory(DeviceError):
    """No memory mode fits; `table` has needs and free memory, in lines."""

    def __init__(self, message: str, table: str) -> None:
        super().__init__(message)
        self.table = table


@dataclass(frozen=True)
class _Room:
    """Needs by mode, and the devices and host memory that they have to fit into."""

    name: str
    needs: dict[Mode, Need]
    devices: Sequence[Device]
    host_free: int

    def fits(self, mode: Mode, share: float = 1.0) -> bool:
        """Whether it fits everywhere, or the given share of what it needs does."""
        need = self.needs[mode]
        return self.host_fits(mode) and all(
            share * need.total <= device.free_or_all for device in self.devices
        )

    def host_fits(self, mode: Mode) -> bool:
        return self.needs[mode].host_for(len(self.devices)) <= self.host_free

    def first(self, modes: Sequence[Mode], share: float = 1.0) -> Mode | None:
        return next((mode for mode in modes if self.fits(mode, share)), None)

    @property
    def tightest(self) -> Device:
        return min(self.devices, key=lambda device: device.free_or_all)

    def lack(self, mode: Mode) -> str:
        """Need and have, in words."""
        need, device = self.needs[mode], self.tightest
        if need.total > device.free_or_all:
            return f"{mode} needs {gib(need.total)} GiB and {device.label} has {_have(device)}"
        host = need.host_for(len(self.devices))
        return f"{mode} needs {gib(host)} GiB of host memory and {gib(self.host_free)} are free"

    def table(self) -> str:
        width = max(map(len, self.needs))
        lines = [f"GPU memory that {self.name} needs, in GiB:"]
        for mode, need in self.needs.items():
            lines.append(f"  {mode:<{width}} {gib(need.total):>6}  ({need.shown})")
        for device in self.devices:
            fitting = [m for m, need in self.needs.items() if need.total <= device.free_or_all]
            lines.append(f"  {device.label} has {_have(device)}: {', '.join(fitting) or 'none'}")
        lines.append(
            f"  host memory: {gib(self.host_free)} GiB free for {len(self.devices)} workers"
        )
        return "\n".join(lines)


def fit_memory(
    name: str,
    memory: Memory,
    checkpoint: Checkpoint | None,
    demand: Demand,
    devices: Sequence[Device],
    abilities: Abilities,
    kept: Mode | None = None,
    key: str = "memory",
) -> MemoryFit:
    """Find the mode: the one that is asked for, if it fits, or the first that does.

    Args:
        name: of the model.
        checkpoint: None where nobody knows what it needs.
        kept: the mode of finished pictures, from which `auto` does not turn away: they would be
            drawn again.
        key: the setting, as messages name it.

    Raises:
        InputError: the mode that is asked for is none for a worker with several GPUs, or for a
            model in fewer bits.
        DeviceError: no mode fits, or not the one that is asked for, or not that of the pictures.
    """
    asked, dtype = abilities.mode_of(memory), abilities.dtype
    gpus = [device for device in devices if device.kind == "cuda"]
    if asked != "full" and abilities.gpus > 1:
        raise InputError(
            f"{key}: {_setting(asked)} is for workers with one GPU; with {abilities.gpus} GPUs per "
            "worker give full, or auto."
        )
    if memory == "auto" and kept is not None and changes_pixels(kept):
        if abilities.gpus > 1:
            raise DeviceError(
                f"{key}: the finished pictures of this folder were made in mode {kept}, which is "
                f"for workers with one GPU. Give memory: full to draw them again with "
                f"{abilities.gpus} GPUs per worker, or gpus_per_worker: 1."
            )
        if not (abilities.can(kept) if gpus else FACTS[kept].on_cpu):
            raise DeviceError(_cannot(kept, key))
        asked = kept
    if not gpus:
        _mind_host_memory(name, checkpoint, dtype, len(devices), abilities.host_free)
        return MemoryFit(asked)
    silent = next((gpu for gpu in gpus if gpu.free is None and gpu.memory == 0), None)
    if checkpoint is None or silent is not None:
        return _unknown(name, memory, asked, abilities, silent)
    modes = abilities.modes() if memory == "auto" else [asked]
    if any(component.is_quantised for component in checkpoint.components):
        if memory != "auto" and changes_pixels(asked):  # as its worker would, once it is here
            raise InputError(
                f"{key}: {memory} cannot be used with {name}, which was saved in fewer bits "
                "already; use full, or a mode in which weights wait."
            )
        # What is in fewer bits already is not made smaller once more.
        modes = [mode for mode in modes if not changes_pixels(mode)] or modes
    shown = list(dict.fromkeys([*modes, asked, *abilities.modes()]))
    try:
        needs = needs_of(checkpoint, shown, demand, dtype, gpus[0].count)
    except (TypeError, ValueError, AttributeError, ArithmeticError):  # configs of another form
        return _unknown(name, memory, asked, abilities, None)
    room = _Room(name, {need.mode: need for need in needs}, gpus, abilities.host_free)
    allowed = modes
    if kept is not None and memory == "auto":
        allowed = [m for m in (kept, *modes) if _pictures(m) == _pictures(kept)]
    mode = room.first(allowed)
    close = mode is None
    if mode is None:
        mode = room.first(allowed[::-1], 1 - MARGIN)
    if mode is None:
        raise LackOfMemory(_refusal(room, key, memory, allowed, modes, kept), room.table())
    if close:
        logger.warning(
            f"Memory: {room.lack(mode)}. The need is an estimate from above: it is tried."
        )
    later = modes[modes.index(mode) + 1 :] if mode in modes else []
    same = tuple(m for m in later if _pictures(m) == _pictures(mode) and room.fits(m))
    # Pictures of another mode that are there already stay as they are.
    other = None if kept else room.first([m for m in later if m not in same])
    most = room.needs[mode].total
    smaller = tuple(m for m in shown if room.needs[m].total < most and room.fits(m))
    return MemoryFit(
        mode,
        _reason(room, memory, mode, kept, modes) + left_as_they_are(checkpoint, mode),
        room.table(),
        same,
        other,
        smaller,
        {m: need.total for m, need in room.needs.items()},
    )


def _setting(mode: Mode) -> str:
    """The line that a user writes into the settings to ask for a mode."""
    return "fp8" if mode == "fp8_cast" else mode


def _pictures(mode: Mode) -> Mode:
    """A key that is equal for modes that draw the same pictures."""
    return mode if changes_pixels(mode) else "full"


def _have(device: Device) -> str:
    if device.free is None:
        return f"{gib(device.memory)} GiB"
    return f"{gib(device.free)} of {gib(device.memory)} GiB free"


def _unknown(
    name: str, memory: Memory, mode: Mode, abilities: Abilities, silent: Device | None
) -> MemoryFit:
    """Take the mode that was asked for (`auto`: the whole model): need or have is unknown."""
    why = f"neither its files nor the hub say how much {name} needs"
    if silent is not None:
        why = f"{silent.label} does not say how much memory it has free"
    # Where the whole model does not fit, a part of it at a time may.
    parts: tuple[Mode, ...] = ("offload", "group_offload")
    same = tuple(m for m in parts if memory == "auto" and mode == "full" and abilities.can(m))
    return MemoryFit(mode, f"Memory: {mode}; {why}.", same_pixels=same)


def _reason(
    room: _Room, memory: Memory, mode: Mode, kept: Mode | None, modes: Sequence[Mode]
) -> str:
    """The mode, and why it was taken, in one line."""
    if memory != "auto":
        return f"Memory: {mode}, as asked for; it needs {gib(room.needs[mode].total)} GiB."
    first = modes[0]
    if kept is not None and changes_pixels(kept):
        return (
            f"Memory: {mode}, in which this folder's finished pictures were made; "
            "a mode that is named in the settings, such as `memory: full`, draws them again."
        )
    if mode == first:
        need, device = room.needs[mode], room.tightest
        return (
            f"Memory: {mode}; it needs {gib(need.total)} GiB, {device.label} has {_have(device)}."
        )
    return f"Memory: {mode}, because {room.lack(first)}."


def _refusal(
    room: _Room,
    key: str,
    memory: Memory,
    allowed: Sequence[Mode],
    modes: Sequence[Mode],
    kept: Mode | None,
) -> str:
    least = min(allowed, key=lambda mode: room.needs[mode].total)
    if memory == "auto" and kept is not None:
        another = room.first(modes)
        instead = f" memory: {_setting(another)} would fit, and draw them again." if another else ""
        return (
            f"{key}: the finished pictures of this folder were made in mode {_pictures(kept)}, "
            f"and {room.lack(kept)}. Wait, choose other GPUs, or name a mode.{instead}"
        )
    if memory == "auto":
        return (
            f"{key}: no mode of {room.name} fits: {room.lack(least)}. Wait, choose other GPUs, "
            "or name a smaller model."
        )
    another = room.first(list(room.needs))
    instead = (
        f"; memory: {_setting(another)} would fit." if another else ", and no other mode would fit."
    )
    return f"{key}: {room.name}: {room.lack(least)}{instead}"


def _cannot(kept: Mode, key: str) -> str:
    package = FACTS[kept].package
    needs = f"{package} and " if package else ""
    return (
        f"{key}: the finished pictures of this folder were made in mode {kept}, which needs {needs}"
        "GPUs that compute so. Install it, choose other GPUs, or name a mode: its pictures are "
        "drawn again then."
    )


def _mind_host_memory(
    name: str, checkpoint: Checkpoint | None, dtype: Dtype, workers: int, free: int
) -> None:
    """Warn where host memory will not do for a model on CPUs; there are no modes to choose from."""
    if checkpoint is None:
        return
    number = 2 if dtype in ("bfloat16", "float16") else 4
    each = sum(c.weights.numbers * number + c.weights.fixed for c in checkpoint.components)
    if workers * each > free:
        shared = f"{workers} workers with {gib(each)} each" if workers > 1 else "its weights"
        logger.warning(
            f"{name} needs {gib(workers * each)} GiB of host memory ({shared}), and {gib(free)} "
            "GiB are free: it may be killed, or swap. Use fewer workers, or a smaller model."
        )
