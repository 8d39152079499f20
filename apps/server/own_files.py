"""What a daemon keeps of its callers: pictures, files, and the LoRAs that they may name."""

from functools import partial
from pathlib import Path

from fastapi import FastAPI

from apps.server.errors import ApiError
from apps.server.file_store import FileStore
from apps.server.inbox import GRACE, Inbox
from apps.server.lora_models import LoraModels
from apps.server.loras import Loras
from apps.server.old_jobs import JOBS
from apps.server.safety.fetching import Fetcher
from apps.server.service import Service
from apps.server.sources import source_picture
from core.paths import user_path


def provide_files(app: FastAPI, service: Service) -> None:
    """Give routes the service's inbox, file store and LoRAs, and have old files swept.

    Raises:
        InputError: `lora_dir` is no path.
        StorageError: the service's folder cannot be written.
    """
    limits = service.rules.limits
    files = FileStore(service.folder, int(limits.files_gib_per_key * 1024**3), limits.files_per_key)

    async def own_file(caller: str, id: str) -> Path | None:
        found = files.find(id, caller)
        return files.path(found) if found else None

    fetcher = Fetcher(int(limits.picture_mib * 1024**2)) if service.rules.fetch_pictures else None
    of_job = partial(_picture, service)
    grace = min(GRACE, 3600 * service.rules.keep_results)
    inbox = Inbox(service.folder, limits, own_file, of_job, fetcher, grace)
    app.state.files = files
    app.state.inbox = inbox
    folder = user_path(service.generator.settings.lora_dir, "lora_dir")
    app.state.loras = Loras(folder, LoraModels(service.generator))
    service.sweepers.extend([files.sweep, partial(inbox.sweep, service.task_texts)])


async def _picture(
    service: Service, caller: str, job: str, position: int, source: int | None = None
) -> Path | None:
    """The picture of a caller's job, or one that a task of it reads, if there is one."""
    try:
        stored = await service.find(job, caller)
    except ApiError:
        return None
    if source is not None:
        return await source_picture(service, stored, position, source)
    results = await service.results(stored, position, 1)
    if not results or results[0].position != position or not results[0].result["success"]:
        return None
    file = service.folder / str(results[0].result["output_path"])
    within = file.resolve().is_relative_to((service.folder / JOBS / stored.id).resolve())
    return file if within and file.is_file() else None
