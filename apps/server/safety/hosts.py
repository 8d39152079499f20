"""Who may be addressed, and by whose pages: Host and Origin of a request.

A page of any web site can send requests to this machine's addresses, and by DNS rebinding under its
own name. A browser tells on it: by the Host that it believes to talk to, by the Origin of the
page, and by Sec-Fetch-Site, which comes with pictures and scripts, too
(https://www.w3.org/TR/fetch-metadata/).
"""

import ipaddress
import re
import socket
from collections.abc import Collection, Iterable

from starlette.types import Scope

from apps.server.errors import ApiError

LOOPBACK_NAME = "localhost"
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)
_OWN_SITES = ("same-origin", "none")  # none: typed in, or from a bookmark
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(text: str) -> _Address | None:
    """The IP address that a host is, as what it stands for; None for a name."""
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def only_this_machine(host: str) -> bool:
    """Whether a socket that listens on `host` can be reached from this machine alone."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # whoever tries to listen there says what is wrong
    addresses = [address_of(str(entry[4][0])) for entry in found]
    return all(address is not None and address.is_loopback for address in addresses)


def host_name(text: str) -> str:
    """A name or an address from the settings, as they are compared.

    Raises:
        ValueError: it is more than that.
    """
    name = text.strip().lower().rstrip(".")
    address = address_of(name)
    if address is not None:
        return str(address)
    found = _AUTHORITY.fullmatch(name)
    if found is None or found[2] is not None or name.startswith("["):
        raise ValueError(f"{text!r} is no host name: give it without scheme, port and path")
    return name


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".")


class Hosts:
    """The names by which the daemon is called.

    Args:
        listening: the host that it listens on.
        allowed: further names.
    """

    def __init__(self, listening: str, allowed: Iterable[str] = ()) -> None:
        self._names = {LOOPBACK_NAME, host_name(listening), *map(host_name, allowed)}
        self._names -= {"0.0.0.0", "::"}  # these mean all addresses, and are nobody's name

    def check(self, scope: Scope) -> None:
        """Raises ApiError for a request under another name, or from another site's page."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        authority = _only(headers, b"host")
        found = _AUTHORITY.fullmatch(authority.lower()) if authority is not None else None
        if authority is None or found is None:
            raise ApiError(400, "The request needs one valid Host header.", "invalid_host")
        if not self._is_own(_plain(found[1]), scope):
            raise ApiError(
                403,
                f"This server is not called {found[1][:100]!r}; `allowed_hosts` in its settings "
                "says by which names it may be.",
                "host_not_allowed",
            )
        self._check_origin(headers, authority.lower(), str(scope["method"]))

    def _is_own(self, host: str, scope: Scope) -> bool:
        address = address_of(host)
        if address is None:
            return host in self._names
        # An address is no name that somebody else can let point here.
        own = address_of(str((scope.get("server") or ("",))[0]))
        return address.is_loopback or address == own or str(address) in self._names

    def _check_origin(
        self, headers: Collection[tuple[bytes, bytes]], authority: str, method: str
    ) -> None:
        origins = [value for name, value in headers if name == b"origin"]
        for origin in origins:
            scheme, _, rest = origin.decode("latin-1").lower().partition("://")
            if scheme not in ("http", "https") or rest != authority:
                raise _foreign()
        told = {name: value.decode("latin-1") for name, value in headers}
        site = told.get(b"sec-fetch-site")
        if origins or site is None or site in _OWN_SITES:
            return
        # A link that somebody follows shows them the page; whoever set it sees nothing of it.
        followed = (told.get(b"sec-fetch-mode"), told.get(b"sec-fetch-dest"))
        if method not in ("GET", "HEAD") or followed != ("navigate", "document"):
            raise _foreign()


def _only(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    values = [value for name, value in headers if name == wanted]
    return values[0].decode("latin-1") if len(values) == 1 else None


def _foreign() -> ApiError:
    return ApiError(403, "Pages of other sites may not use this server.", "origin_not_allowed")
