"""Which worker has which GPUs: several of them, one, or one together with other workers."""

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

from loguru import logger

from core.devices.device import Device, in_groups
from core.errors import DeviceError


def share_out(
    devices: Sequence[Device],
    gpus_per_worker: int | None,
    workers_per_gpu: int,
    asked_for: bool,
) -> list[Device]:
    """One device per worker.

    Args:
        devices: one GPU each, or CPU workers, which neither setting changes.
        gpus_per_worker: None = all of them.
        asked_for: the user named these devices, or their number: none of them may stay idle.

    Raises:
        DeviceError: so many GPUs per worker cannot be had.
    """
    nodes = list(dict.fromkeys(device.node for device in devices))
    if len(nodes) > 1:
        return _on_each(devices, nodes, gpus_per_worker, workers_per_gpu)
    if devices[0].kind == "cpu":
        for name, number in [
            ("gpus_per_worker", gpus_per_worker or 1),
            ("workers_per_gpu", workers_per_gpu),
        ]:
            if number > 1:
                logger.info(f"{name}: {number} is for GPUs, and means nothing to CPU workers.")
        return list(devices)
    size = gpus_per_worker or len(devices)
    rest = len(devices) % size
    if rest and not asked_for and len(devices) > size:
        idle = ", ".join(device.label for device in devices[-rest:])
        logger.warning(f"{idle} stays idle, because gpus_per_worker is {size}.")
        devices = devices[:-rest]
    return _shared(in_groups(devices, size), workers_per_gpu)


def _on_each(
    devices: Sequence[Device], nodes: Sequence[str], gpus_per_worker: int | None, workers: int
) -> list[Device]:
    """Share out machine by machine: no worker has GPUs of two."""
    shared, refusal = [], None
    for node in nodes:
        own = [device for device in devices if device.node == node]
        try:
            shared += share_out(own, gpus_per_worker, workers, asked_for=False)
        except DeviceError as error:  # too few on this one
            refusal = error
    if not shared and refusal is not None:
        raise refusal
    return shared


def _shared(devices: Sequence[Device], workers: int) -> list[Device]:
    """Every GPU's first worker comes before any second one, so that few workers do not share."""
    if workers == 1:
        return list(devices)
    return [
        replace(
            device,
            memory=device.memory // workers,
            free=None if device.free is None else device.free // workers,
            sharers=workers,
            letter=letter,
        )
        for letter in ascii_lowercase[:workers]
        for device in devices
    ]
