"""A process in which SQLite can map no file, as on some network file systems."""

import _sqlite3
import ctypes
import errno
from typing import Any


def refuse_mapping() -> None:
    """Have SQLite's own calls of `mmap` fail in this process (`xSetSystemCall` of its VFS)."""
    pointer = ctypes.c_void_p
    setter = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_char_p, pointer)

    class Vfs(ctypes.Structure):
        _fields_ = [
            *((name, ctypes.c_int) for name in ("version", "file_size", "path_size")),
            *((f"other_{i}", pointer) for i in range(16)),
            ("set_system_call", setter),
        ]

    def refuse(*_: object) -> int | None:
        ctypes.set_errno(errno.ENODEV)
        return ctypes.c_void_p(-1).value

    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = pointer
    vfs = Vfs.from_address(library.sqlite3_vfs_find(None))
    numbers = [ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    kind = ctypes.CFUNCTYPE(pointer, pointer, *numbers, use_errno=True)
    _kept.append(kind(refuse))
    assert not vfs.set_system_call(ctypes.addressof(vfs), b"mmap", ctypes.cast(_kept[0], pointer))


_kept: list[Any] = []  # what SQLite may call for as long as this process lives
