"""By which names the daemon may be called, and from which pages."""

import pytest

from apps.server.errors import ApiError
from apps.server.safety.hosts import Hosts, only_this_machine
from apps.server.settings import load_server_settings
from core.errors import InputError

HOSTS = Hosts("0.0.0.0", ["pictures.example", "2001:db8::7"])


def scope(host: str, method: str = "GET", **headers: str) -> dict[str, object]:
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return {"headers": raw, "method": method, "server": ("192.0.2.5", 8000)}


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:8000", "127.5.5.5", "[::1]:8000",
     "[::ffff:127.0.0.1]", "pictures.example", "Pictures.Example:443", "[2001:db8::7]:8000",
     "[2001:DB8:0::7]", "192.0.2.5:8000"],
)  # fmt: skip
def test_own_names_and_the_address_that_was_called_are_good(host: str) -> None:
    HOSTS.check(scope(host))
    HOSTS.check(scope(host, "POST", origin=f"https://{host}"))
    HOSTS.check(scope(host, "POST", origin=f"http://{host}", sec_fetch_site="same-origin"))


@pytest.mark.parametrize("host", ["192.0.2.6", "other.example", "a.pictures.example", "0.0.0.0"])
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(ApiError, match="is not called"):
        Hosts("127.0.0.1", ["pictures.example"]).check(scope(host))
    for listening, called in (("0.0.0.0", "0.0.0.0"), ("::", "[::]"), ("::1%lo", host)):
        with pytest.raises(ApiError, match="is not called"):
            Hosts(listening).check(scope(called))


def test_a_link_may_be_followed_from_anywhere() -> None:
    told = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    HOSTS.check(scope("localhost", sec_fetch_dest="document", **told))
    HOSTS.check(scope("localhost", sec_fetch_site="none", sec_fetch_mode="navigate"))
    with pytest.raises(ApiError, match="other sites"):
        HOSTS.check(scope("localhost", sec_fetch_dest="iframe", **told))


def test_which_hosts_are_this_machine_alone() -> None:
    assert all(map(only_this_machine, ("127.0.0.1", "::1", "localhost", "127.9.9.9")))
    assert not any(map(only_this_machine, ("0.0.0.0", "::", "192.0.2.1", "nowhere.invalid")))


@pytest.mark.parametrize("name", ["https://a.example", "a.example:80", "a/b", "*", ""])
def test_what_is_no_host_name_is_refused_in_the_settings(name: str) -> None:
    with pytest.raises(InputError, match="allowed_hosts"):
        load_server_settings({"server": {"allowed_hosts": [name]}})
