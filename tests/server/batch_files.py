"""Batch files, and the lines that batches end with."""

import base64
import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types import Batch
from PIL import Image

from tests.conftest import wait_until
from tests.server import image_clients

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
ENDED = ("completed", "failed", "cancelled", "expired")


def request(custom_id: str, url: str = GENERATIONS, **body: Any) -> dict[str, Any]:
    """A line of a batch file."""
    body = {"prompt": "a house", "size": "32x32", **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def text_of(lines: Iterable[Any]) -> str:
    """A batch file; texts stand in it as they are."""
    return "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)


def send(client: OpenAI, lines: Iterable[Any], endpoint: Any = GENERATIONS, **more: Any) -> Batch:
    """Send a file, and have it done."""
    file = client.files.create(file=("in.jsonl", text_of(lines).encode()), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
    )


def ended(client: OpenAI, batch: Batch) -> Batch:
    """Wait until a batch has ended."""

    def at_its_end() -> Batch | None:
        found = client.batches.retrieve(batch.id)
        return found if found.status in ENDED else None

    found: Batch = wait_until(at_its_end, "the end of a batch")
    return found


def lines_of(client: OpenAI, file: str | None) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    if file is None:
        return []
    return [json.loads(line) for line in client.files.content(file).text.splitlines()]


def lines_in(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of this machine."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def pixels(line: dict[str, Any]) -> list[bytes]:
    """What the pictures of a line show."""
    data = [item["b64_json"] for item in line["response"]["body"]["data"]]
    return [Image.open(BytesIO(base64.b64decode(text))).convert("RGB").tobytes() for text in data]


def picture() -> bytes:
    """A picture to be edited."""
    stream = BytesIO()
    Image.new("RGB", (48, 32), (9, 90, 200)).save(stream, "PNG")
    return stream.getvalue()


def data_url() -> str:
    return image_clients.data_url(("picture.png", picture(), "image/png"))


def mask_url(clear: int = 24) -> str:
    """A mask for that picture, which is transparent up to a column."""
    return image_clients.data_url(image_clients.mask(clear))
