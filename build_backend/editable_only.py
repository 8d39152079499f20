"""setuptools' build backend without wheels: `pip install -e .` works, `pip install .` is refused.

A wheel would put folders with names like `core`, `apps` and `workers` into the site-packages of
whoever installs it, where they can collide with other programs', and would leave `config/` and the
demo model's weights behind. An editable install points to this folder, where all of that lies.
"""

from typing import NoReturn

from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_editable",
]

REFUSAL = "This project has no wheel: it runs from its folder. Install it with: pip install -e ."


def build_wheel(*_: object, **__: object) -> NoReturn:
    """Refuse `pip install .` and `pip wheel .` in one line."""
    raise SystemExit(REFUSAL)


def build_sdist(*_: object, **__: object) -> NoReturn:
    """Refuse source archives, of which wheels would be built."""
    raise SystemExit(REFUSAL)
