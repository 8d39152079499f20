"""What the work on a batch is done with."""

from dataclasses import dataclass

from apps.server.batches.lines import LineFiles
from apps.server.batches.requests import RequestTasks
from apps.server.batches.store import BatchStore
from apps.server.file_store import FileStore
from apps.server.service import Service


@dataclass(frozen=True)
class Tools:
    """What all batches of a daemon share."""

    service: Service
    store: BatchStore
    files: FileStore
    tasks: RequestTasks
    lines: LineFiles
