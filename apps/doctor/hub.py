"""What the environment says of the model hub."""

import os
from collections.abc import Iterator
from pathlib import Path

from apps.doctor.finding import Finding

_SHOWN = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_XET_HIGH_PERFORMANCE")


def hub() -> Iterator[Finding]:
    """Offline or not, the variables that count, and whether there is an access token."""
    from huggingface_hub import constants
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        yield Finding(
            "note",
            "model hub",
            "HF_HUB_OFFLINE is set: models come from the cache alone.",
            "Unset it where there is a network, or fetch models before with `hf download`.",
            {"offline": True},
        )
    else:
        text = f"{constants.ENDPOINT} is asked for models that are not in the cache."
        yield Finding("ok", "model hub", text, facts={"offline": False})
    told = {name: os.environ[name] for name in _SHOWN if os.environ.get(name)}
    if told:
        shown = ", ".join(f"{name}={value}" for name, value in told.items())
        yield Finding("ok", "environment", f"{shown}.", facts=told)
    has_token = bool(os.environ.get("HF_TOKEN")) or _is_file(Path(constants.HF_TOKEN_PATH))
    if has_token:
        yield Finding("ok", "access token", "There is one.", facts={"token": True})
    else:
        yield Finding(
            "note",
            "access token",
            "There is none; only gated and private models need it.",
            "hf auth login, or HF_TOKEN",
            {"token": False},
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
