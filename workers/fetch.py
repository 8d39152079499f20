"""The process that fetches a hub's model; `core.processes.model_fetch` starts it.

It imports no torch, so that it is up in a second, and nothing that a hub does to it holds main.
"""

import os
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from core.checkpoints.single_file import inspect_single_file
from core.errors import one_line
from core.messages import Fetched, Fetching, FetchPause, FetchRefused, Log, ToMain, clip, encode
from core.worker_spec import WorkerSpec
from workers.boot import bind_to_parent, ignore_terminal_signals
from workers.hub_files import Given

SECONDS_BETWEEN = 0.25  # of two messages about bytes


def fetch(spec: WorkerSpec, writer: Connection) -> None:
    """Fetch the model of a worker's spec, and say where it is."""
    bind_to_parent(spec.parent_pid)
    ignore_terminal_signals()
    lock = threading.Lock()

    def send(message: ToMain) -> None:
        with lock:
            try:
                writer.send_bytes(encode(message))
            except OSError:
                os._exit(0)  # main is gone

    def log(level: str, text: str) -> None:
        send(Log(level, clip(text)))

    def sleep(seconds: float) -> None:
        send(FetchPause(seconds))
        time.sleep(seconds)

    # Only now what takes a second to import.
    from huggingface_hub.utils import logging as hub_logging

    from workers.errors import classify
    from workers.hub import HubModel
    from workers.hub_download import Download, Progress

    def tell(progress: Progress) -> None:
        send(Fetching(progress.done, progress.total))

    hub_logging.set_verbosity_error()
    model = HubModel(spec.source, spec.revision, spec.index_file)
    try:
        folder = Download(model, log, tell, sleep, spec.variant, _given(spec)).run()
    except Exception as error:
        text = classify(error)[1]
        named = text if text.startswith(spec.source) else f"{spec.source}: {text}"
        send(FetchRefused(clip(one_line(named))))
        return
    send(Fetched(str(folder)))


def _given(spec: WorkerSpec) -> Given:
    """What a file of the user's own has, so that it need not come from the hub."""
    if spec.base_model is None:
        return "nothing"
    return "everything" if inspect_single_file(Path(spec.model)).whole else "denoiser"
