"""Settings of a run that edits: the shared ones, with the model that edits in section `editor`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from core.settings import DEFAULT_FILE, Settings
from core.settings_file import overlaid


class EditSettings(Settings):
    """Settings of a generator; keys of the benchmark alone may stand there, and mean nothing."""

    data: Any = None
    device_ids: Any = None
    parallel_mode: Any = None
    cpu_workers: Any = None
    stages: Any = None
    enable_batch_sync: Any = None
    vram_release_timeout: Any = None
    bootstrap_samples: Any = None


OF_THE_BENCHMARK = tuple(EditSettings.model_fields.keys() - Settings.model_fields.keys())


def load_edit_settings(source: str | Path | Mapping[str, Any] | None = None) -> EditSettings:
    """Settings from a YAML file, one of the benchmark or a recipe included, or from a mapping.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    settings = overlaid(EditSettings, [DEFAULT_FILE], source)
    foreign = [name for name in OF_THE_BENCHMARK if getattr(settings, name) is not None]
    if foreign and not isinstance(source, Mapping):
        logger.info(f"{source}: {', '.join(sorted(foreign))}: of the benchmark alone, passed over.")
    return settings
