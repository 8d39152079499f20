"""Pictures that are fetched from elsewhere, without lending anybody this machine's network.

Whoever names an address may mean one that only this machine reaches. So names are resolved here,
every address that they have must be public, and the connection goes to one that was checked: the
name is not looked up again. Each redirect is a new address, checked anew.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urljoin, urlsplit

import httpcore2

from apps.server.errors import ApiError, bad_value
from apps.server.safety.hosts import address_of

PORT = 443
MAX_REDIRECTS = 3
MAX_URL = 4096  # characters
SECONDS = 30.0  # for all of it, redirects included
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {b"accept": b"image/*", b"accept-encoding": b"identity", b"user-agent": b"image-daemon"}
# Networks that stand for addresses of another kind, which may be private.
_TRANSLATED = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "2002::/16", "2001::/32")]
Resolve = Callable[[str, int], Awaitable[list[str]]]


def is_public(text: str) -> bool:
    """Whether an address is one that anybody on the internet may speak to."""
    address = address_of(text)
    if address is None or any(
        address in net for net in _TRANSLATED if net.version == address.version
    ):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, as the system knows them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Fetcher:
    """Fetches from public https addresses.

    Args:
        most: bytes of an answer.
        resolve: gives the addresses of a host.
        network: makes connections to addresses; by default TCP.
    """

    def __init__(
        self,
        most: int,
        resolve: Resolve = resolve,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._most = most
        self._network = _PublicNetwork(network or httpcore2.AnyIOBackend(), resolve)
        self._tls = ssl.create_default_context()

    async def fetch(self, url: str, param: str) -> bytes:
        """What there is at an address.

        Raises:
            ApiError: 400: not allowed, not there, too large or too slow.
        """
        try:
            async with asyncio.timeout(SECONDS):
                for _ in range(MAX_REDIRECTS + 1):
                    content, url = await self._ask(_checked(url, param), param)
                    if content is not None:
                        return content
        except _NotPublic:
            raise _refused(param, "is not an address on the public internet") from None
        except TimeoutError:
            raise _refused(param, f"did not answer within {SECONDS:g} s") from None
        except (
            OSError, UnicodeError, httpcore2.NetworkError, httpcore2.TimeoutException,
            httpcore2.ProtocolError, httpcore2.UnsupportedProtocol,
        ):  # fmt: skip
            raise _refused(param, "cannot be fetched") from None
        raise _refused(param, "redirects again and again")

    async def _ask(self, url: str, param: str) -> tuple[bytes | None, str]:
        """The content of an answer, or None and where it says to go on."""
        async with (
            httpcore2.AsyncConnectionPool(self._tls, network_backend=self._network) as pool,
            pool.stream("GET", url, headers=list(_HEADERS.items())) as answer,
        ):
            told = {name.lower(): value for name, value in reversed(answer.headers)}
            if answer.status in _REDIRECTS and b"location" in told:
                return None, _joined(url, told[b"location"].decode("latin-1"), param)
            if answer.status != 200:
                raise _refused(param, f"answers with status {answer.status}")
            length = told.get(b"content-length", b"0")
            if not length.isdigit() or int(length[:20]) > self._most:
                raise self._too_large(param)
            parts, size = [], 0
            async for part in answer.aiter_stream():
                size += len(part)
                if size > self._most:
                    raise self._too_large(param)
                parts.append(part)
            return b"".join(parts), url

    def _too_large(self, param: str) -> ApiError:
        return _refused(param, f"is larger than {self._most / 1024**2:g} MiB", "image_too_large")


class _NotPublic(Exception):
    """A host has an address that is not for everybody."""


class _PublicNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses, whatever their names point to a moment later."""

    def __init__(self, network: httpcore2.AsyncNetworkBackend, resolve: Resolve) -> None:
        self._network = network
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        if not addresses or not all(map(is_public, addresses)):
            raise _NotPublic(host)
        return await self._network.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def _joined(url: str, place: str, param: str) -> str:
    try:
        return urljoin(url, place)
    except ValueError:
        raise _refused(param, "redirects to no valid address") from None


def _checked(url: str, param: str) -> str:
    """An address that may be asked; its host's addresses are checked as they become known."""
    try:
        parts = urlsplit(url)
        port = parts.port
        plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
    except ValueError:
        raise _refused(param, "is no valid address") from None
    if parts.scheme != "https" or not parts.hostname or not plain:
        raise _refused(param, "is no https:// address")
    if port not in (None, PORT) or "@" in parts.netloc:
        raise _refused(param, f"has a user or another port than {PORT}")
    return parts._replace(fragment="").geturl()


def _refused(param: str, why: str, code: str = "invalid_image_url") -> ApiError:
    return bad_value(param, f"{param}: the picture's address {why}.", code)
