"""What a request for pictures is answered: one body at the end, or an event for each picture."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from apps.openai_images.answer import BACKGROUND, USAGE, Usage, Wanted, body_parts
from apps.openai_images.encoding import encoded, shown_as, size_of
from apps.openai_images.parameters import EditParameters, Format, ImageParameters
from apps.server.errors import ApiError
from apps.server.event_stream import sent_event
from apps.server.images.links import Links
from apps.server.images.places import picture_file, position_of
from apps.server.live_job import Preview
from apps.server.public_results import public_result
from apps.server.records import TaskResult

DRAWN, EDITED = "image_generation", "image_edit"
QUICK = 256 * 1024  # bytes of PNGs that are read and sent sooner than threads are switched twice


class _PictureEvent(TypedDict):
    type: str
    created_at: int
    background: Literal["opaque"]
    output_format: Format
    quality: str
    image_index: int
    safety_identifier: NotRequired[str]  # of those that are done


class PartialImage(_PictureEvent):
    """A picture on its way.

    Attributes:
        image_index: place of the picture in its request, from 0.
        b64_json: a small copy of it as it stands, in base64.
        partial_image_index: how many of the picture came before.
    """

    b64_json: str
    partial_image_index: int
    size: str


class CompletedImage(_PictureEvent):
    """A picture that is done.

    Attributes:
        image_index: place of the picture in its request, from 0.
        b64_json: the picture in base64.
    """

    b64_json: str
    size: str
    usage: Usage
    seed: int


@dataclass(frozen=True)
class Answer:
    """How the pictures of one job are handed out. Methods read and encode files.

    Attributes:
        folder: of the daemon.
        address: of the daemon, as the client calls it, without a slash at its end.
    """

    asked: ImageParameters
    job: str
    folder: Path
    links: Links
    address: str

    @property
    def is_quick(self) -> bool:
        """Whether the pictures are small files that go out as they lie there, just written."""
        wanted = Wanted.by(self.asked)
        if self.asked.output_format != "png":
            return False
        files = [self._file(position) for position in range(wanted.n)]
        try:
            return sum(file.stat().st_size for file in files) <= QUICK
        except OSError:
            return False

    def body(self, results: Sequence[TaskResult], created: int) -> bytes:
        """All pictures of a job that has them, as JSON.

        Args:
            created: Unix time.

        Raises:
            ApiError: 410: they were removed.
        """
        wanted = Wanted.by(self.asked)
        seeds = {one.position: one.result["seed"] for one in results}
        files = [self._file(position) for position in range(wanted.n)]
        in_order = [seeds[position] for position in range(wanted.n)]
        parts = body_parts(wanted, created, files, in_order, self._url, public_result)
        return b"".join(parts)

    def completed(self, one: TaskResult) -> bytes:
        """The event of a picture that is done.

        Raises:
            ApiError: 410: it was removed.
        """
        file = self._file(one.position)
        asked = self.asked
        content = encoded(file, asked.output_format, asked.output_compression, public_result)
        event: CompletedImage = {
            **self._event("completed", one.position),
            "b64_json": _base64(content),
            "size": size_of(file),
            "usage": USAGE,
            "seed": one.result["seed"],
        }
        if asked.identifier:
            event["safety_identifier"] = asked.identifier
        return sent_event(event["type"], event)

    def partial(self, preview: Preview, index: int) -> bytes:
        """The event of a preview, in the format that the picture will have.

        Args:
            index: how many previews of the picture came before.
        """
        asked = self.asked
        content = shown_as(preview.content, asked.output_format, asked.output_compression)
        event: PartialImage = {
            **self._event("partial_image", position_of(preview.task_id)),
            "b64_json": _base64(content),
            "partial_image_index": index,
            "size": asked.size,
        }
        return sent_event(event["type"], event)

    def _event(self, name: str, position: int) -> _PictureEvent:
        prefix = EDITED if isinstance(self.asked, EditParameters) else DRAWN
        return {
            "type": f"{prefix}.{name}",
            "created_at": int(time.time()),
            "background": BACKGROUND,
            "output_format": self.asked.output_format,
            "quality": self.asked.quality,
            "image_index": position,
        }

    def _url(self, position: int) -> str:
        asked = self.asked
        path = self.links.path(self.job, position, asked.output_format, asked.output_compression)
        return self.address + path

    def _file(self, position: int) -> Path:
        file = picture_file(self.folder, self.job, position)
        if not file.is_file():  # it is old, and asked for once more
            raise ApiError(410, "The pictures of this request were removed.", "result_gone")
        return file


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
