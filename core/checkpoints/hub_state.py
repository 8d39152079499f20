"""Whether a hub's model can be had: from the cache, by a download, or not at all."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.checkpoints.checkpoint import Checkpoint, checkpoint_of_folder
from core.errors import one_line

REQUEST_TIMEOUT = 5.0  # seconds for the hub's answer

Kind = Literal["cached", "download", "refused", "unknown"]


@dataclass(frozen=True)
class HubState:
    """How a model on the hub stands.

    Attributes:
        kind: `cached`, whole in the cache; `download`, a run fetches it first; `refused`, it cannot
            be had as things stand; `unknown`, the hub did not answer.
        folder: its files in the cache; None where they are not all there.
        why: of a refusal, and what to do about it.
    """

    kind: Kind
    folder: Path | None = None
    why: str = ""


def state_of(
    name: str, revision: str | None, variant: str | None, index_file: str, ask: bool = True
) -> HubState:
    """How a model on the hub stands, by its cache and one small question.

    Args:
        ask: the hub, where the cache does not have the whole model.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub import errors as hub

    found = None
    with suppress(ValueError):  # no name that a hub knows
        found = try_to_load_from_cache(name, index_file, revision=revision)
    if isinstance(found, str) and checkpoint_of_folder(Path(found).parent, variant) is not None:
        return HubState("cached", Path(found).parent)
    if constants.is_offline_mode():
        return HubState(
            "refused",
            why=f"HF_HUB_OFFLINE is set, and the model is not whole in the cache "
            f"({constants.HF_HUB_CACHE}). Run `hf download {name}` where there is a network.",
        )
    if not ask:
        return HubState("unknown", why="the hub was not asked")
    page = f"{constants.ENDPOINT}/{name}"
    try:
        get_hf_file_metadata(
            hf_hub_url(name, index_file, revision=revision), timeout=REQUEST_TIMEOUT
        )
    # Every class before those that it is derived from.
    except hub.GatedRepoError:
        why = (
            f"the model is gated. Accept its licence at {page}, then log in with `hf auth login`, "
            "or set HF_TOKEN."
        )
    except hub.RepositoryNotFoundError:
        why = (
            f"there is no such model at {constants.ENDPOINT}, or it is private. Check the "
            "spelling; for a private model log in with `hf auth login`, or set HF_TOKEN."
        )
    except hub.RevisionNotFoundError:
        why = f"the model has no revision {revision!r}. See {page}/tree/main."
    except hub.RemoteEntryNotFoundError:
        why = f"the model has no {index_file}. See {page}/tree/{revision or 'main'}."
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500 or status == 429:
            return HubState("unknown", why=f"the hub answers with HTTP status {status}")
        why = f"the hub refuses it ({_brief(error)})."
    except Exception as error:  # whatever a network and a proxy come to
        return HubState("unknown", why=f"the hub does not answer ({_brief(error)})")
    else:
        return HubState("download")
    return HubState("refused", why=why)


def bytes_to_fetch(checkpoint: Checkpoint | None, name: str) -> int | None:
    """Bytes of a model's weights that are not in the cache; None where nobody knows them all."""
    if checkpoint is None:
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    there = 0
    with suppress(OSError):
        there = sum(entry.stat().st_size for entry in os.scandir(blobs / "blobs"))
    return max(0, checkpoint.as_stored - there)


def cache_folder() -> Path:
    """Where the hub's client keeps models."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _brief(error: BaseException) -> str:
    return one_line(" ".join(str(error).split()))[:200] or type(error).__name__
