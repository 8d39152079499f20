"""What the settings say of pictures that are asked for, whoever reads the request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from core.fields import Steps
from core.model_settings import Count
from core.section import Section
from core.settings import DEFAULT_FILE, PROJECT_DIR, Settings
from core.settings_file import overlaid

SERVER_FILE = PROJECT_DIR / "config" / "server.yaml"
Quality = Literal["low", "medium", "high", "xhigh", "max", "standard", "hd"]


class QualitySteps(Section):
    """Denoising steps that a `quality` stands for, by the kind of request."""

    generations: dict[Quality, Steps]
    edits: dict[Quality, Steps]


class ImagesSection(Section):
    """The section `images` of a daemon's settings.

    Attributes:
        url_lifetime: minutes.
        max_pixels: of one picture.
    """

    url_lifetime: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_pixels: Count
    quality: QualitySteps


class _Server(Section):
    """Of a daemon's own settings, what concerns whoever draws without one, too."""

    model_config = ConfigDict(extra="ignore")

    images: ImagesSection


class ImageSettings(Settings):
    """Settings of a generator, and what requests of the Images API mean on it."""

    server: _Server

    @property
    def images(self) -> ImagesSection:
        return self.server.images


def load_image_settings(source: str | Path | Mapping[str, Any] | None = None) -> ImageSettings:
    """Settings from a YAML file or a mapping, which may be a daemon's.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    return overlaid(ImageSettings, [DEFAULT_FILE, SERVER_FILE], source)
