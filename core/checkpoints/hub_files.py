"""Single files of the Hugging Face hub, fetched into its cache once for all workers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from core.details import log_line
from core.errors import InputError

_SHA256_DIGITS = 64
REQUEST_TIMEOUT = 10.0  # seconds for the hub's answer to what version of the file it has


def fetch_file(repository: str, file: str, revision: str | None, where: str) -> Path:
    """The file in the hub's cache; it is downloaded if it is not there.

    Without an answer of the hub, what the cache has is taken.

    Args:
        where: the setting that names it, for messages.

    Raises:
        InputError: there is no such file, it may not be read, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with _refusals_in_our_words(repository, file, revision, where):
        if not isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
            logger.info(f"Downloading {file} of {repository} from the hub.")
        with _in_our_log(f"{file} of {repository}"):
            found = hf_hub_download(
                repository, file, revision=revision, etag_timeout=REQUEST_TIMEOUT
            )
        return Path(found)


def look_at_file(
    repository: str, file: str, revision: str | None, where: str
) -> tuple[Path, str | None]:
    """Where a file of the hub is, or would come to be, in the cache; nothing is downloaded.

    Returns:
        The place, and the SHA-256 that the hub gives for a file that is not there yet.

    Raises:
        InputError: as `fetch_file` raises it, or the hub does not say what is in the file.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub import errors as hub

    with _refusals_in_our_words(repository, file, revision, where):
        found = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found), None
        if constants.is_offline_mode():
            raise hub.LocalEntryNotFoundError("it is not in the cache")
        url = hf_hub_url(repository, file, revision=revision)
        told = get_hf_file_metadata(url, timeout=REQUEST_TIMEOUT)
        etag = told.etag or ""
        if len(etag) != _SHA256_DIGITS:  # of a small file it is another hash
            raise ValueError("the hub does not say the hash of its content; download it first")
        place = Path(constants.HF_HUB_CACHE) / repository / str(told.commit_hash) / file
        return place, etag


@contextmanager
def _refusals_in_our_words(
    repository: str, file: str, revision: str | None, where: str
) -> Iterator[None]:
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    page = f"{constants.ENDPOINT}/{repository}"
    try:
        yield
        return
    # Every class before those that it is derived from.
    except hub.GatedRepoError:
        reason = (
            f"the repository is gated. Accept its licence at {page}, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    except hub.RepositoryNotFoundError:
        reason = "there is no such repository, or it is private. Check the spelling, or log in."
    except hub.RevisionNotFoundError:
        reason = f"the repository has no revision {revision!r}. See {page}/tree/main."
    except hub.RemoteEntryNotFoundError:
        reason = f"the repository has no such file. See {page}/tree/{revision or 'main'}."
    except hub.LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the hub does not answer"
        reason = (
            f"{why}, and the file is not in the cache ({constants.HF_HUB_CACHE}). Run `hf "
            f"download {repository} {file}` where there is a network, or give a local file."
        )
    except httpx2.TransportError as error:
        reason = (
            f"the hub stopped answering ({' '.join(str(error).split())[:200]}). Run it again, or "
            f"`hf download {repository} {file}` first."
        )
    except (hub.HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
    raise InputError(f"{where}: {file} of {repository}: {reason}")


@contextmanager
def _in_our_log(what: str) -> Iterator[None]:
    """Pass the retries of the hub's client on to the run's log; it would print two lines for each.

    Args:
        what: is fetched meanwhile.
    """

    def pass_on(said: logging.LogRecord) -> bool:
        text = said.getMessage()
        again = text.startswith(("Retrying", "Rate limited"))
        log_line("WARNING" if again else "DEBUG", f"{what}: {text}")
        return False

    client = logging.getLogger("huggingface_hub.utils._http")
    client.addFilter(pass_on)
    try:
        yield
    finally:
        client.removeFilter(pass_on)
