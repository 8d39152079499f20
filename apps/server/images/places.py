"""Where the pictures of a job lie, and what their tasks are called."""

from functools import partial
from pathlib import Path

from apps.openai_images.tasks import Place
from apps.server.old_jobs import JOBS

BETWEEN = "/"  # a job's id and the position of a picture, in the name of its task


def places_of(job: str, first: int = 0) -> Place:
    """Names and output paths of pictures of a job, from the one at position `first` on."""
    return partial(_place, job, first)


def _place(job: str, first: int, place: int) -> tuple[str, str]:
    position = first + place
    return f"{job}{BETWEEN}{position}", f"{JOBS}/{job}/{position}.png"


def position_of(task_id: str) -> int:
    """The position of a picture in its job, by its task's name."""
    return int(task_id.rpartition(BETWEEN)[2])


def picture_file(folder: Path, job: str, position: int) -> Path:
    """Where a picture of a job lies."""
    return folder / JOBS / job / f"{position}.png"
