"""The model hub: what its refusals mean, and asking again where that may help.

Lasting refusals (a missing or gated repository, a wrong revision, offline mode) end it at once
with what to do about them; what passes (5xx, 429, timeouts) is tried again with pauses that grow.
One small question comes first, because the libraries would retry for minutes on their own, and
a hub that does not answer would hold them for ever. `workers.hub_download` fetches models so.
"""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub import errors as hub_errors
from huggingface_hub.constants import is_offline_mode

from core.errors import ModelLoadError
from core.index_files import PIPELINE_INDEX
from workers.errors import causes_of

Log = Callable[[str, str], None]
T = TypeVar("T")

REQUEST_TIMEOUT = 10.0  # seconds for one answer of the hub
# Seconds before each further try. Without any connection a few must do: what may come back is a
# Wi-Fi; a cluster's node without network stays so.
PAUSES_UNREACHABLE = (1.0, 2.0, 4.0, 8.0)
PAUSES_BUSY = (1.0, 2.0, 4.0, 8.0, 15.0, *[30.0] * 7)
LONGEST_PAUSE = 60.0  # seconds, if the hub asks for a longer one; less than a load may stand still
GOT_ON = 60.0  # seconds after which a try counts as progress, and the tries begin anew
_PASSING_STATUS = (408, 425, 429)  # and all of 500 and above
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class HubModel:
    """A model as the user named it. `index_file`: what every model of its kind has."""

    name: str
    revision: str | None
    index_file: str


@dataclass(frozen=True)
class Refusal:
    """Why the hub gave nothing.

    Attributes:
        reason: for the user, without the model's name.
        pauses: seconds before each further try; empty if no other try would change anything.
        wait: seconds that the hub itself asks to wait.
    """

    reason: str
    pauses: tuple[float, ...] = ()
    wait: float = 0.0


def load_from_hub(
    model: HubModel,
    load: Callable[[], T],
    log: Log,
    ask: Callable[[HubModel], object] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call `load`, which fetches `model` from the hub; tries again what passes.

    Args:
        ask: asks the hub for the model before each load.
        sleep: waits between two tries.

    Raises:
        ModelLoadError: the hub refuses, or did not answer for too long.
        Exception: whatever else `load` raises.
    """
    _limit_every_request()
    question = ask or ask_for
    return patiently(model, lambda: _load_once(model, load, log, question), log, sleep)


def patiently(
    model: HubModel,
    once: Callable[[], T],
    log: Log,
    sleep: Callable[[float], None],
    got_on: Callable[[], bool] = lambda: False,
) -> T:
    """Call `once`; what passes of the hub's refusals is tried again, in pauses that grow.

    Args:
        got_on: whether the newest try brought something, so that the tries begin anew.

    Raises:
        ModelLoadError: the hub refuses, or did not answer for too long.
        Exception: whatever else `once` raises.
    """
    tries = 0
    while True:
        started = time.monotonic()
        try:
            return once()
        except ModelLoadError:
            raise  # with words of its own, whatever it came of
        except Exception as error:
            refusal = refusal_of(error, model)
            if refusal is None:
                raise
            if got_on() or time.monotonic() - started > GOT_ON:
                tries = 0
            tries += 1
            if tries > len(refusal.pauses):
                times = f" after {tries} tries" if tries > 1 else ""
                raise ModelLoadError(f"{model.name}{times}: {refusal.reason}") from error
        pause = max(refusal.pauses[tries - 1], min(refusal.wait, LONGEST_PAUSE))
        log(
            "WARNING",
            f"{model.name}: {refusal.reason} Try {tries + 1} of {len(refusal.pauses) + 1} "
            f"follows in {pause:g} s.",
        )
        sleep(pause)


def _load_once(
    model: HubModel, load: Callable[[], T], log: Log, ask: Callable[[HubModel], object]
) -> T:
    if is_offline_mode():
        return load()
    try:
        ask(model)
    except Exception as error:
        refusal = refusal_of(error, model)
        if refusal is None or not refusal.pauses or not _is_cached(model):
            raise
        log("WARNING", f"{model.name}: {refusal.reason} It is loaded from the cache.")
        constants.HF_HUB_OFFLINE = True  # or every file of it would wait for the hub
        try:
            return load()
        except Exception as incomplete:
            if refusal_of(incomplete, model) is not None:
                raise error from None
            raise
        finally:
            constants.HF_HUB_OFFLINE = False
    return load()


def ask_for(model: HubModel) -> str | None:
    """One small question, which brings every lasting refusal to light; returns the commit."""
    url = hf_hub_url(model.name, model.index_file, revision=model.revision)
    return get_hf_file_metadata(url, timeout=REQUEST_TIMEOUT).commit_hash


def _is_cached(model: HubModel) -> bool:
    found = try_to_load_from_cache(model.name, model.index_file, revision=model.revision)
    return isinstance(found, str)


def refusal_of(error: BaseException, model: HubModel) -> Refusal | None:
    """What the hub's client said, if it takes part in `error`, however it was wrapped."""
    causes = list(causes_of(error))
    for cause in causes:  # the latest first
        lasting = _lasting(cause, model)
        if lasting is not None:
            return Refusal(lasting)
        passing = _passing(cause)
        if passing is not None:
            return passing
    if not any(isinstance(c, hub_errors.LocalEntryNotFoundError) for c in causes):
        return None
    if is_offline_mode():
        return Refusal(_offline(model))
    return Refusal(f"The hub did not answer ({_brief(causes[-1])}).", PAUSES_UNREACHABLE)


def _lasting(error: BaseException, model: HubModel) -> str | None:
    """What to do about a refusal that no other try would change."""
    page = f"{constants.ENDPOINT}/{model.name}"
    # Every class before those that it is derived from.
    match error:
        case hub_errors.OfflineModeIsEnabled():
            return _offline(model)
        case hub_errors.GatedRepoError():
            return (
                f"the model is gated. Accept its licence at {page}, then {_LOG_IN} with an "
                "account that has access."
            )
        case hub_errors.RepositoryNotFoundError():
            return (
                f"there is no such model at {constants.ENDPOINT}, or it is private; nor is there "
                f"a folder of that name. Check the spelling; for a private model {_LOG_IN}."
            )
        case hub_errors.RevisionNotFoundError():
            asked = model.revision or constants.DEFAULT_REVISION
            return f"the model has no revision {asked!r}. Its branches and tags: {page}/tree/main."
        case hub_errors.RemoteEntryNotFoundError():
            kind = "diffusers" if model.index_file == PIPELINE_INDEX else "transformers"
            return (
                f"the model lacks a file that a {kind} model has ({_file_of(error)}). Give one "
                f"whose files at {page}/tree/{model.revision or 'main'} include {model.index_file}."
            )
        case hub_errors.DisabledRepoError():
            return f"access to the model is disabled; see {page}."
        case hub_errors.HFValidationError():
            return "that is no name of a model on the hub; give one like 'owner/name', or a folder."
        case hub_errors.HfHubHTTPError() if error.response.status_code == 401:
            return (
                f"{constants.ENDPOINT} asks who wants it: the name is misspelt, the model is "
                f"private, or the access token is not valid. Check the name, and {_LOG_IN}."
            )
        case hub_errors.HfHubHTTPError() if error.response.status_code == 403:
            return (
                f"the access token may not read the model. Ask for access at {page}, or "
                f"{_LOG_IN} with another account."
            )
        case hub_errors.HfHubHTTPError() if not _passes(error.response.status_code):
            return f"the hub refuses it ({_brief(error)})."
        case httpx2.UnsupportedProtocol():  # of TransportError, and yet no matter of time
            return (
                f"the hub's address is {constants.ENDPOINT!r} (HF_ENDPOINT); it has to begin with "
                "http:// or https://."
            )
        case OSError() if _concerns_the_cache(error):
            return (
                f"the models' cache ({constants.HF_HUB_CACHE}) cannot be used "
                f"({error.strerror}). Have HF_HOME name a folder with room that can be written, "
                "or give the model's folder."
            )
    return None


def _concerns_the_cache(error: OSError) -> bool:
    """Whether the disk refuses to write the cache, which another try would meet again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOTDIR):
        return False
    return str(error.filename).startswith((constants.HF_HOME, constants.HF_HUB_CACHE))


def _offline(model: HubModel) -> str:
    return (
        "HF_HUB_OFFLINE is set, and the model is not, or not wholly, in the cache "
        f"({constants.HF_HUB_CACHE}). Unset it, run `hf download {model.name}` where there is a "
        "network, or give the model's folder."
    )


def _passing(error: BaseException) -> Refusal | None:
    """A refusal that another try may find gone."""
    match error:
        case hub_errors.HfHubHTTPError():
            status = error.response.status_code
            reason = f"The hub answered with HTTP {status}."
            return Refusal(reason, PAUSES_BUSY, _asked_to_wait(error.response))
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError():
            why = f"The hub cannot be reached at {constants.ENDPOINT} ({_brief(error)})."
            return Refusal(why, PAUSES_UNREACHABLE)
        case httpx2.TimeoutException():
            return Refusal("The hub did not answer in time.", PAUSES_BUSY)
        case httpx2.TransportError():
            return Refusal(f"The connection to the hub broke ({_brief(error)}).", PAUSES_BUSY)
    return None


def _passes(status: int) -> bool:
    return status >= 500 or status in _PASSING_STATUS


def _asked_to_wait(response: Any) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _file_of(error: Any) -> str:
    """The file that a request was about."""
    path = str(error.response.request.url.path)
    return path.split("/resolve/")[-1].partition("/")[2] or path


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]


_limiting = threading.Lock()
_limited = False


def _limit_every_request() -> None:
    """The hub's client lets some requests wait for ever: give each a limit of its own.

    Once: a new factory closes the client that another thread may be using.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def limited() -> httpx2.Client:
        client = default_client_factory()
        hooks = client.event_hooks
        hooks["request"] = [*hooks.get("request", []), _limit]
        client.event_hooks = hooks
        return client

    global _limited
    with _limiting:
        if not _limited:
            set_client_factory(limited)
            _limited = True


def _limit(request: httpx2.Request) -> None:
    times = request.extensions.get("timeout") or {}
    usual = httpx2.Timeout(REQUEST_TIMEOUT).as_dict()
    request.extensions["timeout"] = {
        key: times[key] if times.get(key) is not None else seconds for key, seconds in usual.items()
    }
