"""The daemon's settings: config/server.yaml over config/default.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from core.fields import Steps
from core.model_settings import Count
from core.section import Section
from core.settings import DEFAULT_FILE, PROJECT_DIR, OptionalSeconds, Settings
from core.settings_file import overlaid

SERVER_FILE = PROJECT_DIR / "config" / "server.yaml"


Quality = Literal["low", "medium", "high", "xhigh", "max", "standard", "hd"]


class QualitySteps(Section):
    """Denoising steps that a `quality` stands for, by the kind of request."""

    generations: dict[Quality, Steps]
    edits: dict[Quality, Steps]


class ImagesSection(Section):
    """What concerns the Images API alone.

    Attributes:
        url_lifetime: minutes.
        max_pixels: of one picture.
    """

    url_lifetime: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_pixels: Count
    quality: QualitySteps


class ServerSection(Section):
    """What concerns the daemon alone."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65535)]
    output_dir: Annotated[str, Field(min_length=1)]
    allowed_hosts: list[Annotated[str, Field(min_length=1)]]
    keep_results: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_tasks_per_job: Count
    max_waiting: Count
    max_waiting_per_key: Count
    drain_timeout: OptionalSeconds
    images: ImagesSection


class ServerSettings(Settings):
    """All settings of a daemon: those of its generator, and its own."""

    server: ServerSection


def load_server_settings(
    source: str | Path | Mapping[str, Any] | None = None,
) -> ServerSettings:
    """Settings from a YAML file or a mapping, laid over the shipped ones.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    return overlaid(ServerSettings, [DEFAULT_FILE, SERVER_FILE], source)
