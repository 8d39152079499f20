"""The daemon's settings: config/server.yaml over config/default.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from apps.openai_images.rules import SERVER_FILE, ImagesSection
from apps.server.safety.hosts import host_name
from apps.server.safety.keys import FILE_NAME
from apps.server.safety.limits import MIB, BodyLimits, ConnectionLimits
from core.model_settings import Count
from core.paths import user_path
from core.pictures.source_images import MAX_BYTES, MAX_PIXELS
from core.remote.protocol import MOST_PRIORITY
from core.section import Section
from core.settings import DEFAULT_FILE, OptionalSeconds, Settings
from core.settings_file import overlaid

GIB = 1024 * MIB
Duration = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # seconds
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LimitsSection(Section):
    """What clients may send, and how slowly; sizes in the unit that ends a name."""

    connections: Count
    header_seconds: Duration
    body_seconds: Duration
    body_kib_per_second: Count
    write_seconds: Duration
    json_mib: Size
    upload_mib: Size
    buffered_mib: Size
    picture_mib: Annotated[float, Field(gt=0, le=MAX_BYTES / MIB)]
    picture_megapixels: Annotated[float, Field(gt=0, le=MAX_PIXELS / 1e6)]
    inbox_gib: Size
    inbox_gib_per_key: Size
    files_gib_per_key: Size
    files_per_key: Count

    @property
    def of_connections(self) -> ConnectionLimits:
        return ConnectionLimits(self.connections, self.header_seconds, self.write_seconds)

    @property
    def of_bodies(self) -> BodyLimits:
        return BodyLimits(
            json_bytes=int(self.json_mib * MIB),
            upload_bytes=int(self.upload_mib * MIB),
            buffered_bytes=int(self.buffered_mib * MIB),
            seconds=self.body_seconds,
            bytes_per_second=self.body_kib_per_second * 1024,
        )


class ServerSection(Section):
    """What concerns the daemon alone."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65535)]
    output_dir: Annotated[str, Field(min_length=1)]
    keys_file: Annotated[str, Field(min_length=1)] | None
    allowed_hosts: list[Annotated[str, AfterValidator(host_name)]]
    fetch_pictures: bool
    limits: LimitsSection
    keep_results: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_tasks_per_job: Count
    max_waiting: Count
    max_waiting_per_key: Count
    max_priority_per_key: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)]
    drain_timeout: OptionalSeconds
    command_timeout: Duration
    images: ImagesSection

    def keys_place(self, output_dir: Path | None = None) -> Path:
        """The file of API keys.

        Args:
            output_dir: where results lie, if elsewhere than the settings say.

        Raises:
            InputError: no file system could have such a path.
        """
        if self.keys_file is not None:
            return user_path(self.keys_file, "keys_file")
        return (output_dir or Path(self.output_dir)) / FILE_NAME


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
