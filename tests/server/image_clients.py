"""The official client of a daemon, and what its pictures say."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from openai import OpenAI
from PIL import Image

from core.store.provenance import read_provenance
from tests.conftest import PATIENCE
from tests.server.conftest import Daemon

SMALL: dict[str, Any] = {"size": "32x32"}


@contextmanager
def openai_client(daemon: Daemon) -> Iterator[OpenAI]:
    """The official client; this one refuses answers that have not the form of OpenAI's."""
    with OpenAI(
        base_url=f"{daemon.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=PATIENCE,
        http_client=httpx2.Client(trust_env=False, verify=False),
        _strict_response_validation=True,
    ) as client:
        yield client


@contextmanager
def asked(daemon: Daemon, place: str, body: dict[str, Any], **headers: str) -> Iterator[None]:
    """A client that has asked for something, and leaves without an answer."""
    host, port = daemon.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    fields = {"Host": host, "Content-Type": "application/json", **headers}
    lines = [f"{name}: {value}" for name, value in fields.items()]
    head = "\r\n".join([f"POST {place} HTTP/1.1", *lines, f"Content-Length: {len(content)}"])
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + content)
        yield


def picture(item: Any) -> Image.Image:
    """The picture in an answer or an event."""
    return Image.open(BytesIO(base64.b64decode(item.b64_json)))


def made_by(item: Any) -> dict[str, Any]:
    """The task that a PNG says it was made by."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        file.write_bytes(base64.b64decode(item.b64_json))
        task: dict[str, Any] = read_provenance(file)["task"]
        return task


def png(colour: tuple[int, int, int] = (9, 90, 200)) -> tuple[str, bytes, str]:
    """A picture to be edited, as the client takes files: name, content, type."""
    return _file(Image.new("RGB", (48, 32), colour))


def mask(clear: int = 24, size: tuple[int, int] = (48, 32)) -> tuple[str, bytes, str]:
    """A mask for it, transparent up to a column; its colour is the same all over."""
    picture = Image.new("RGBA", size, (200, 0, 0, 255))
    picture.paste((200, 0, 0, 0), (0, 0, clear, size[1]))
    return _file(picture)


def data_url(file: tuple[str, bytes, str]) -> str:
    """The same in JSON."""
    return f"data:{file[2]};base64,{base64.b64encode(file[1]).decode()}"


def _file(picture: Image.Image) -> tuple[str, bytes, str]:
    stream = BytesIO()
    picture.save(stream, "PNG")
    return "picture.png", stream.getvalue(), "image/png"
