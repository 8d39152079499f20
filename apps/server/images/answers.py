"""What a request for pictures is answered: one body at the end, or an event for each picture."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.server.images.encoding import encoded, shown_as, size_of
from apps.server.images.links import Links
from apps.server.images.parameters import AUTO, EditParameters, ImageParameters
from apps.server.images.tasks import position_of
from apps.server.live_job import Preview
from apps.server.service import JOBS

# Nothing is metered in tokens here; the client's types want numbers.
USAGE: Mapping[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
BACKGROUND = "opaque"


@dataclass(frozen=True)
class Answer:
    """How the pictures of one job are handed out. Methods read and encode files.

    Attributes:
        folder: of the daemon.
        seeds: of the job's pictures.
        address: of the daemon, as the client calls it, without a slash at its end.
    """

    asked: ImageParameters
    job: str
    folder: Path
    seeds: Sequence[int]
    links: Links
    address: str

    def body(self) -> bytes:
        """All pictures of a job that has them, as JSON."""
        asked = self.asked
        body = {
            "created": int(time.time()),
            "background": BACKGROUND,
            "output_format": asked.output_format,
            "quality": None if asked.quality == AUTO else asked.quality,
            "size": size_of(self._file(0)),
            "data": [self._item(position) for position in range(asked.n)],
            "usage": USAGE,
            "safety_identifier": asked.identifier,
        }
        return _json({name: value for name, value in body.items() if value is not None})

    def completed(self, position: int) -> bytes:
        """The event of a picture that is done."""
        file = self._file(position)
        asked = self.asked
        return self._event(
            "completed",
            position,
            b64_json=_base64(encoded(file, asked.output_format, asked.output_compression)),
            size=size_of(file),
            usage=USAGE,
            seed=self.seeds[position],
            **({"safety_identifier": asked.identifier} if asked.identifier else {}),
        )

    def partial(self, preview: Preview, index: int) -> bytes:
        """The event of a preview, in the format that the picture will have.

        Args:
            index: how many previews of the picture came before.
        """
        asked = self.asked
        content = shown_as(preview.content, asked.output_format, asked.output_compression)
        return self._event(
            "partial_image",
            position_of(preview.task_id),
            b64_json=_base64(content),
            partial_image_index=index,
            size=asked.size,
        )

    def _event(self, name: str, position: int, **more: Any) -> bytes:
        prefix = "image_edit" if isinstance(self.asked, EditParameters) else "image_generation"
        kind = f"{prefix}.{name}"
        event = {
            "type": kind,
            "created_at": int(time.time()),
            "background": BACKGROUND,
            "output_format": self.asked.output_format,
            "quality": self.asked.quality,
            "image_index": position,
            **more,
        }
        return sent_event(kind, event)

    def _item(self, position: int) -> dict[str, Any]:
        asked, file = self.asked, self._file(position)
        compression = asked.output_compression
        if asked.response_format == "url":
            path = self.links.path(self.job, position, asked.output_format, compression)
            return {"url": self.address + path, "seed": self.seeds[position]}
        picture = encoded(file, asked.output_format, compression)
        return {"b64_json": _base64(picture), "seed": self.seeds[position]}

    def _file(self, position: int) -> Path:
        return picture_file(self.folder, self.job, position)


def picture_file(folder: Path, job: str, position: int) -> Path:
    """Where a picture of a job lies."""
    return folder / JOBS / job / f"{position}.png"


def sent_event(name: str, data: Mapping[str, Any]) -> bytes:
    """One server-sent event.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _json(data))


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
