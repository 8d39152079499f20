"""What clients may take of the daemon: connections, bytes and time."""

from dataclasses import dataclass

MIB = 1024**2


@dataclass(frozen=True)
class BodyLimits:
    """What a request may bring.

    Attributes:
        json_bytes: of a body that is no upload.
        upload_bytes: of a multipart body.
        buffered_bytes: of all bodies that wait in memory for their ends.
        seconds: that a body may take, beside a second for each `bytes_per_second` of it.
    """

    json_bytes: int
    upload_bytes: int
    buffered_bytes: int
    seconds: float
    bytes_per_second: int


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client may take.

    Attributes:
        connections: open at the same time, of all clients.
        header_seconds: from the first byte of a request, or from the opening of the connection,
            until its headers are complete.
        write_seconds: until a client that takes nothing of its answer is left.
    """

    connections: int
    header_seconds: float
    write_seconds: float
