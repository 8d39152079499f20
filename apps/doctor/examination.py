"""All that is looked at, by topic."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from apps.doctor import daemon, gpus, host, hub, software, storage, would_use
from apps.doctor.finding import Finding
from core.paths import user_path
from core.settings import Settings

Findings = dict[str, list[Finding]]


def examine(
    settings: Settings, ask_torch: Callable[[], dict[str, Any]] = software.ask_torch
) -> Findings:
    """What is found, by topic, in the order in which it is shown."""
    count, of_gpus = gpus.gpus()
    output = user_path(settings.output_dir, "output_dir")
    return {
        "Software": [
            *_safely("Python", software.python),
            *_safely("torch", lambda: software.torch(count, ask_torch)),
            *_safely("packages", software.packages),
        ],
        "Machine": [
            *of_gpus,
            *_safely("cores", host.cores),
            *_safely("host memory", host.memory),
            *_safely("shared memory", host.shared_memory),
            *_safely("open files", host.open_files),
        ],
        "Disks": [
            *_safely("results", lambda: storage.results(Path(output))),
            *_safely("temporary files", storage.temporary),
            *_safely("models' cache", storage.models),
        ],
        "Services": [
            *_safely("model hub", hub.hub),
            *_safely("daemon", daemon.daemon),
        ],
        "A run would use": _safely("generate", lambda: would_use.would_use(settings)),
    }


def _safely(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a look finds; where it breaks down, that is what was found."""
    try:
        return list(look())
    except ImportError as error:
        advice = "pip install -r requirements.txt"
        return [Finding("problem", name, f"A package is missing: {error}.", advice)]
    except OSError as error:
        return [Finding("note", name, f"It cannot be looked at: {error.strerror or error}.")]
