"""Settings of a run: those of files, with the command line's over them."""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from apps.arguments import with_engine_options
from core.errors import InputError
from core.paths import as_text
from core.settings import Settings
from core.settings_file import laid_over

S = TypeVar("S", bound=Settings)
OF_RUNS = ("output_dir", "seed", "use_server", "gallery")
OF_MODELS = ("model", "gpus_per_worker", "workers_per_gpu")


def with_options(
    options: argparse.Namespace, load: Callable[[Any], S], section: str | None = None
) -> S:
    """The settings file of `--config`, and the command line over it.

    Args:
        load: reads and checks settings.
        section: of the model that options speak of; None for the model that draws.

    Raises:
        InputError: names the file or option, the value and what would be right.
    """
    settings = load(options.config)
    changes = _given(options, OF_RUNS)
    model = _given(options, OF_MODELS)
    changes |= model if section is None else {section: model}
    of_files = {"picture_format": options.format, "picture_quality": options.quality}
    of_files = {key: value for key, value in of_files.items() if value is not None}
    if options.quality is not None and (options.format or settings.workers.picture_format) == "png":
        raise InputError("--quality: PNG is lossless; use it with --format jpeg or webp.")
    changed = laid_over(settings, {**changes, "workers": of_files}, load)
    return with_engine_options(options, changed)


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in names}
    # Bytes that the locale has no letters for came in as surrogates, which are no text.
    return {
        name: as_text(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }
