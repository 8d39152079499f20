"""The worker process: boot, loop, poison pill. See `core.processes.entry_points`."""

import os
import time
from multiprocessing.connection import Connection
from typing import NoReturn, assert_never

from core.errors import ModelLoadError
from core.fault_points import fault_point
from core.messages import (
    LASTING,
    MAX_NAME_BYTES,
    BootFailed,
    Compiling,
    Failed,
    FailureKind,
    Generated,
    Keep,
    Lease,
    Load,
    Loaded,
    LoadFailed,
    PromptCut,
    Ready,
    Stop,
    clip,
    room_beside,
)
from core.worker_spec import WorkerSpec
from workers.boot import bind_to_parent, ignore_terminal_signals
from workers.channel import Channel, work_on
from workers.lora_orders import obey
from workers.models.base import ModelFamily, Product
from workers.result_saver import ResultSaver
from workers.steps import StepReporter

LEAVING_EXIT = 3  # a worker that asked for its own replacement


def run_worker(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    """Serve leases until the poison pill comes."""
    started = time.monotonic()
    bind_to_parent(spec.parent_pid)
    ignore_terminal_signals()
    channel = Channel(reader, writer)
    channel.start()
    fault_point("worker.boot")

    # Only now what takes seconds to import or could hang.
    from workers.extras import hide_unneeded
    from workers.library_warnings import pass_on

    hide_unneeded(spec.packages)
    pass_on(channel.send)
    try:
        from workers.models.registry import create_family

        family = create_family(spec, channel.log)
        name, uuid = family.device_identity()
    except Exception as error:
        from workers.errors import classify_at_boot

        kind, text = classify_at_boot(error)
        channel.send(BootFailed(kind, clip(text)))
        os._exit(LEAVING_EXIT)
    channel.send(
        Ready(
            pid=os.getpid(),
            device_name=name,
            device_uuid=uuid,
            visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
            boot_seconds=time.monotonic() - started,
        )
    )
    _Worker(spec, channel, family).serve()


def run_fetch(spec: WorkerSpec, writer: Connection) -> None:
    """Fetch a hub's model, for `core.processes.model_fetch`."""
    from workers.fetch import fetch

    fetch(spec, writer)


class _Worker:
    """One loop: receive, decide, act."""

    def __init__(self, spec: WorkerSpec, channel: Channel, family: ModelFamily) -> None:
        self._channel = channel
        self._family = family
        self._saver = ResultSaver(channel, spec.most_saving)
        self._free_since = time.monotonic()
        family.before_compiling(lambda: channel.send(Compiling()))
        self._steps = StepReporter(channel.offer)
        family.on_steps(self._steps.tell)
        family.on_previews(self._saver.show)

    def serve(self) -> None:
        while True:
            message = self._channel.get()
            match message:
                case Load(folder):
                    self._load(folder)
                case Lease():
                    fault_point("worker.lease")
                    self._run(self._group(message))
                case Keep():
                    self._keep(message)
                case Stop():
                    self._saver.close()
                    return
                case _:
                    assert_never(message)

    def _load(self, folder: str) -> None:
        started = time.monotonic()
        try:
            fault_point("worker.load")
            if folder:
                self._family.model_is_at(folder)
            model_class = self._family.load()
        except Exception as error:
            from workers.errors import classify

            kind, text = classify(error)
            everywhere = isinstance(error, ModelLoadError)
            self._channel.send(LoadFailed(kind, clip(text), everywhere))
            if kind not in LASTING and not everywhere:
                os._exit(LEAVING_EXIT)  # a fresh process may find disk and device mended
            return
        self._channel.send(Loaded(model_class, time.monotonic() - started))

    def _keep(self, order: Keep) -> None:
        fault_point("worker.keep")
        kept = obey(self._family, order)
        self._free_since = time.monotonic()
        self._channel.send(kept)
        if kept.kind == "device":
            self._leave()

    def _group(self, first: Lease) -> list[Lease]:
        """`first` and the leases that main sent right behind it."""
        leases = [first]
        while leases[-1].more_follow:
            following = self._channel.get()
            assert isinstance(following, Lease)
            leases.append(following)
        return leases

    def _run(self, leases: list[Lease]) -> None:
        work_on([lease.task_name for lease in leases])
        self._steps.begin(leases)
        started = time.monotonic()
        waited = started - self._free_since
        try:
            products = self._products(leases)
        except Exception as error:
            if len(leases) > 1:  # one of them cannot be done: find out which
                self._run_one_by_one(leases, error)
            else:
                self._report(leases[0], error, time.monotonic() - started)
            return
        finally:
            self._free_since = time.monotonic()
        seconds = (self._free_since - started) / len(leases)
        for lease, product in zip(leases, products, strict=True):
            for remark in product.remarks:
                self._channel.send(PromptCut(clip(remark), clip(lease.task_name, MAX_NAME_BYTES)))
            self._saver.reserve()  # a slow disk holds the device back here, before memory fills up
            counts = self._family.take_lora_counts()
            loras = self._family.resident_loras()
            self._channel.send(
                Generated(lease.lease_id, seconds, waited, counts.loads, counts.switches, loras)
            )
            self._saver.save(lease, product, seconds)
        work_on([])

    def _run_one_by_one(self, leases: list[Lease], error: Exception) -> None:
        from workers.errors import classify

        kind, text = classify(error)
        if kind == "device":
            for lease in leases[1:]:
                self._channel.send(Failed(lease.lease_id, kind, clip(text)))
            self._report(leases[0], error, 0.0)
        for lease in leases:
            self._run([lease])

    def _products(self, leases: list[Lease], failures: int = 0) -> list[Product]:
        """Run; after an out-of-memory error try smaller, for as long as the family knows how."""
        from workers.errors import causes_of, classify

        try:
            return self._family.run(leases)
        except Exception as error:
            if classify(error)[0] != "out_of_memory":
                raise
            shortage = error
        for cause in causes_of(shortage):
            cause.__traceback__ = None  # it keeps the failed attempt's tensors alive
        if len(leases) > 1:
            self._channel.log("WARNING", f"out of memory with {len(leases)} at once; halving")
            self._family.too_many()
            middle = len(leases) // 2
            return self._products(leases[:middle]) + self._products(leases[middle:])
        remedy = self._family.free_memory(failures + 1)
        if remedy is None:
            raise shortage
        self._channel.log("WARNING", f"out of memory; {remedy}")
        return self._products(leases, failures + 1)

    def _report(self, lease: Lease, error: Exception, seconds: float) -> None:
        from workers.errors import classify

        kind, text = classify(error)
        leaving = _must_leave(kind)
        loras = self._family.resident_loras()
        text = clip(text, room_beside(loras))
        self._channel.send(Failed(lease.lease_id, kind, text, seconds, leaving, loras))
        if leaving:
            self._leave()

    def _leave(self) -> NoReturn:
        self._saver.close()  # pictures that are drawn already are not lost
        os._exit(LEAVING_EXIT)


def _must_leave(kind: FailureKind) -> bool:
    """A CUDA error poisons the context for good; repeated shortage may be fragmentation."""
    return kind in ("device", "out_of_memory")
