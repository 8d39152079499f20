"""API keys: who may ask, and who is who. The file holds hashes alone.

A key is 256 random bits, so that one round of SHA-256 is as good as a slow hash is for passwords.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loguru import logger

from apps.server.errors import ApiError
from core.errors import InputError, StorageError
from core.validation import shown

FILE_NAME = "api-keys.json"  # in the output folder, if the settings name no other
LOOK_AGAIN = 1.0  # seconds until the file is looked at again
_PREFIX = "sk-"
_NAME = re.compile(r"[\w.@-]{1,64}")
_BEARER = re.compile(r"[Bb]earer +(\S+)")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class ApiKey:
    """One key, as it is kept.

    Attributes:
        id: of its owner's jobs, files and pictures; a key that replaces it has the same.
        created: Unix time.
        operator: its owner may also drain workers, load and unload models, and ask for any
            priority.
        max_priority: the highest that its owner's jobs may ask for; None for what the settings say.
    """

    id: str
    name: str
    sha256: str
    created: int
    operator: bool = False
    max_priority: int | None = None


def read_keys(file: Path) -> list[ApiKey]:
    """The keys of a file; none where there is no file.

    Raises:
        InputError: it is no file of keys, or others may write it.
    """
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"keys_file: {file} cannot be read: {error.strerror}.") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"keys_file: {file} can be written by others; its mode must be 0600.")
    try:
        keys = [ApiKey(**entry) for entry in json.loads(content)["keys"]]
        if not all(map(_is_whole, keys)):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"keys_file: {file} is no file of API keys, or damaged.") from None
    return keys


def add_key(file: Path, name: str, operator: bool = False, max_priority: int | None = None) -> str:
    """Make a key for somebody; returns it, and nothing else knows it.

    Args:
        operator, max_priority: see `ApiKey`.

    Raises:
        InputError: the name is taken, or no name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name: {shown(name)}: up to 64 letters, digits and any of `_.@-` are a name."
        )
    with _changing(file):
        keys = read_keys(file)
        if any(key.name == name for key in keys):
            raise InputError(
                f"name: {name} has a key already; `rotate` replaces it, `revoke` ends it."
            )
        secret = _new_secret()
        id = f"key_{secrets.token_hex(8)}"
        made = ApiKey(id, name, _hash(secret), int(time.time()), operator, max_priority)
        _write(file, [*keys, made])
    return secret


def rotate_key(file: Path, name: str) -> str:
    """Replace somebody's key; jobs and files stay theirs. Returns the new one."""
    with _changing(file):
        keys = read_keys(file)
        place = _place(keys, name, file)
        secret = _new_secret()
        keys[place] = replace(keys[place], sha256=_hash(secret), created=int(time.time()))
        _write(file, keys)
    return secret


def limit_key(file: Path, name: str, max_priority: int) -> None:
    """Set the highest priority that jobs of somebody's key may ask for.

    Raises:
        InputError: nobody of that name has a key, or it is an operator's.
    """
    with _changing(file):
        keys = read_keys(file)
        place = _place(keys, name, file)
        if keys[place].operator:
            raise InputError(f"max_priority: {name} is an operator, who may ask for any priority.")
        keys[place] = replace(keys[place], max_priority=max_priority)
        _write(file, keys)


def revoke_key(file: Path, name: str) -> None:
    """End somebody's key; a running daemon knows it within seconds."""
    with _changing(file):
        keys = read_keys(file)
        del keys[_place(keys, name, file)]
        _write(file, keys)


class ApiKeys:
    """The keys of a running daemon, which follows its file.

    Once there was a key, one is asked for: no later state of the file opens the door again.

    Raises:
        InputError: as `read_keys`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._mark = _mark_of(file)
        self._set(read_keys(file))
        self.needed = bool(self._keys)
        self._look_at = time.monotonic() + LOOK_AGAIN

    def owner(self, authorization: Sequence[str]) -> ApiKey | None:
        """Which key a request's Authorization headers hold; None where it has none.

        Raises:
            ApiError: 401 for what is no key of this server.
        """
        self._look()
        if not authorization:
            return None
        found = _BEARER.fullmatch(authorization[0].strip()) if len(authorization) == 1 else None
        if found is not None:
            digest = hashlib.sha256(found[1].encode("latin-1")).digest()
            owner = None
            for known, key in self._keys:  # all of them: the time says nothing of which it was
                if hmac.compare_digest(known, digest):
                    owner = key
            if owner is not None:
                return owner
        raise ApiError(401, "Incorrect API key provided.", "invalid_api_key", headers=_CHALLENGE)

    def lets_in(self, key: ApiKey | None) -> bool:
        """Whether who came with this key, or with none, would be let in now, too."""
        self._look()
        if key is None:
            return not self.needed
        return any(known.sha256 == key.sha256 for _, known in self._keys)

    def _set(self, keys: Sequence[ApiKey]) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_AGAIN
        mark = _mark_of(self._file)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._set(read_keys(self._file))
        except InputError as error:
            logger.error(f"API keys stay as they were: {error}")
            return
        self.needed = self.needed or bool(self._keys)
        logger.info(f"API keys were read again: there are {len(self._keys)}.")


def key_missing() -> ApiError:
    """401: a key is needed, and none was sent."""
    return ApiError(
        401,
        "You didn't provide an API key. Provide it in an Authorization header, using Bearer auth: "
        "`Authorization: Bearer YOUR_KEY`.",
        "invalid_api_key",
        headers=_CHALLENGE,
    )


def _is_whole(key: ApiKey) -> bool:
    right_types = type(key.operator) is bool and type(key.max_priority) in (int, type(None))
    return len(bytes.fromhex(key.sha256)) == 32 and bool(key.id) and right_types


def _new_secret() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _place(keys: Sequence[ApiKey], name: str, file: Path) -> int:
    found = next((place for place, key in enumerate(keys) if key.name == name), None)
    if found is None:
        raise InputError(f"name: {shown(name)} has no key in {file}.")
    return found


def _mark_of(file: Path) -> tuple[int, ...] | None:
    """What changes when the file does."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


@contextmanager
def _changing(file: Path) -> Iterator[None]:
    """One change after the other, whoever makes them."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"{file.parent}: {error.strerror}.") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        os.fsync(handle)
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}.") from None
    finally:
        os.close(handle)


def _write(file: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file, whole or not at all; it is nobody else's to read at any moment."""
    partial = file.with_name(f".partial-{file.name}")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        json.dump({"keys": [asdict(key) for key in keys]}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)
