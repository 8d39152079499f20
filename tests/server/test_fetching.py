"""Pictures by address: from the public internet alone, whatever names and redirects say."""

import asyncio
from typing import Any

import httpcore2
import pytest

from apps.server.errors import ApiError
from apps.server.safety.fetching import Fetcher, is_public

PUBLIC = "93.184.216.34"


class Network(httpcore2.AsyncMockBackend):
    """Answers connections with given texts, in order, and notes where they went."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__([])
        self.answers = list(answers)
        self.connected: list[str] = []

    async def connect_tcp(self, host: str, *args: Any, **more: Any) -> Any:
        self.connected.append(host)
        return httpcore2.AsyncMockStream([self.answers.pop(0)])


def fetched(url: str, network: Network, most: int = 1000, **addresses: str) -> bytes:
    async def resolve(host: str, port: int) -> list[str]:
        assert port == 443
        return addresses.get(host.replace(".", "_"), PUBLIC).split(",")

    return asyncio.run(Fetcher(most, resolve, network).fetch(url, "image"))


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def moved(place: str) -> bytes:
    return answer(b"", "302 Found", f"Location: {place}")


def test_a_picture_is_fetched_from_the_address_that_was_checked() -> None:
    network = Network(moved("/b.png"), moved("https://other.example/c.png"), answer(b"picture"))
    content = fetched("https://a.example/a.png", network, other_example="93.184.216.35")
    assert content == b"picture"
    assert network.connected == [PUBLIC, PUBLIC, "93.184.216.35"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "::1",
     "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "::ffff:93.184.216.34.x", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::",
     "::127.0.0.1", "2001:db8::1", f"{PUBLIC},10.0.0.1", ""],
)  # fmt: skip
def test_private_addresses_are_never_asked(address: str) -> None:
    network = Network()
    for answers in ([], [moved("https://b.example/")]):
        network.answers = list(answers)
        url = "https://b.example/" if not answers else "https://a.example/"
        with pytest.raises(ApiError, match="not an address on the public internet"):
            fetched(url, network, b_example=address)
    assert set(network.connected) == {PUBLIC}


def test_public_addresses_are_public() -> None:
    assert all(map(is_public, (PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8")))


@pytest.mark.parametrize(
    ("url", "why"),
    [("http://a.example/", "no https"), ("ftp://a.example/", "no https"),
     ("https://a.example:8080/", "another port"), ("https://me@a.example/", "a user"),
     ("https://a.example:x/", "valid"), ("https://[::1", "valid"),
     ("https://a.example/a b", "no https"), ("https://a.example/" + "a" * 5000, "no https")],
)  # fmt: skip
def test_addresses_of_other_kinds_are_refused(url: str, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        fetched(url, Network())
    with pytest.raises(ApiError, match=why):
        fetched("https://b.example/", Network(moved(url)))


def test_what_is_too_large_is_not_read() -> None:
    with pytest.raises(ApiError, match="larger than"):
        fetched("https://a.example/", Network(answer(b"x" * 20)), most=10)
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\nxxxxxxxx\r\n" * 20
    with pytest.raises(ApiError, match="larger than"):
        fetched("https://a.example/", Network(chunks), most=100)


@pytest.mark.parametrize(
    ("said", "why"),
    [(answer(b"", "404 Not Found"), "status 404"), (b"nonsense\r\n\r\n", "cannot be fetched"),
     (b"", "cannot be fetched"), (answer(b"x", "206 Partial Content"), "status 206"),
     (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "cannot be fetched")],
)  # fmt: skip
def test_answers_that_are_no_picture_are_told(said: bytes, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        fetched("https://a.example/", Network(said))


def test_redirects_end() -> None:
    with pytest.raises(ApiError, match="again and again"):
        fetched("https://a.example/", Network(*[moved("/")] * 9))
