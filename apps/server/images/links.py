"""Addresses of pictures that nobody can guess, and that end by themselves.

An address is its own permission, so that browsers and `requests.get` take it without a key: it
names job, picture, format and last moment, and carries a signature of them. Nothing has to be kept
for it but the secret, which survives restarts of the daemon.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import cast

from apps.openai_images.encoding import MEDIA_TYPES
from apps.openai_images.parameters import Format
from core.errors import StorageError

PREFIX = "/pictures/"
SECRET_FILE = "picture_urls.key"
SECRET_BYTES = 32
SIGNATURE_BYTES = 16
_JOB = re.compile(r"[A-Za-z0-9_-]{1,64}")


class NoLink(Exception):
    """An address that was not given out here."""


@dataclass(frozen=True)
class Link:
    """What an address stands for. `ends` is a Unix time in seconds."""

    job: str
    position: int
    format: Format
    compression: int
    ends: int

    @property
    def expired(self) -> bool:
        return time.time() >= self.ends


class Links:
    """Makes and reads addresses of pictures.

    Args:
        secret: by which they are signed.
        lifetime: minutes for which an address answers.
    """

    def __init__(self, secret: bytes, lifetime: float) -> None:
        self._secret = secret
        self._lifetime = lifetime

    @classmethod
    def of_folder(cls, folder: Path, lifetime: float) -> "Links":
        """Those of a daemon's folder, where the secret lies, readable by its user alone.

        Raises:
            StorageError: the folder cannot be written.
        """
        file = folder / SECRET_FILE
        try:
            with suppress(FileExistsError):
                _write_new(file, secrets.token_bytes(SECRET_BYTES))
            secret = file.read_bytes()
            if len(secret) != SECRET_BYTES:  # cut short by a full disk: older addresses end
                file.unlink()
                secret = secrets.token_bytes(SECRET_BYTES)
                _write_new(file, secret)
        except OSError as error:
            raise StorageError(f"{file}: {error.strerror}.") from None
        return cls(secret, lifetime)

    def path(
        self,
        job: str,
        position: int,
        format: Format,
        compression: int,
        ends: float | None = None,
    ) -> str:
        """The path of an address that answers until the Unix time `ends`, or for its lifetime."""
        ends = int(time.time() + 60 * self._lifetime if ends is None else ends)
        said = json.dumps(astuple(Link(job, position, format, compression, ends))).encode()
        token = base64.urlsafe_b64encode(self._signature(said) + said).rstrip(b"=").decode()
        return f"{PREFIX}{token}.{format}"

    def read(self, name: str) -> Link:
        """What the last part of an address stands for.

        Raises:
            NoLink: it was not given out here.
        """
        token, _, suffix = name.partition(".")
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise NoLink from None
        signature, said = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(said)):
            raise NoLink
        job, position, format, compression, ends = json.loads(said)
        if suffix != format or format not in MEDIA_TYPES or not _JOB.fullmatch(job):
            raise NoLink
        return Link(job, position, cast(Format, format), compression, ends)

    def _signature(self, said: bytes) -> bytes:
        return hmac.digest(self._secret, said, hashlib.sha256)[:SIGNATURE_BYTES]


def _write_new(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
