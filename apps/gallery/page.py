"""`index.html`: styles, scripts and, once a run has ended, its data, in one file.

Scripts are modules in `static/` and `apps/page_parts/`. Browsers load no module that lies beside
a page which was opened as a file, so that all of them are put into the page as one script.
"""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from apps.gallery.places import MARK
from apps.page_parts import FOLDER as SHARED
from core.errors import InputError
from core.paths import as_text
from core.store.outputs import write_atomically

STATIC = Path(__file__).parent / "static"
ENTRY = "main.js"
MOST_HEAD = 2_000  # characters of a page in which its mark stands
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
# What data scripts call; they may come before all else, or be loaded beside the page later.
_COLLECTOR = (
    "var gallery={parts:[],heard(){},"
    "add(number,items){this.parts[number]=items;this.heard()},"
    "tell(run){this.run=run;this.heard()},"
    "draw(timeline){this.timeline=timeline;this.heard()}};\n"
)


def page_text(title: str, data: Sequence[str] = ()) -> str:
    """The page.

    Args:
        data: scripts of `apps.gallery.data`; without any, the page loads those that lie beside it.
    """
    scripts = [_COLLECTOR, *data, bundle()]
    style = "".join((folder / name).read_text("utf-8") for folder, name in _STYLES)
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src 'self' file: data:",
            f"style-src {_source_of(style)}",
            f"script-src 'self' file: {' '.join(map(_source_of, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    body = (STATIC / "page.html").read_text("utf-8")
    return body.format_map(
        {
            "mark": MARK,
            "policy": policy,
            "title": html.escape(title),
            "style": style,
            "scripts": "".join(f"<script>{script}</script>\n" for script in scripts),
        }
    )


_STYLES = ((SHARED, "base.css"), (STATIC, "gallery.css"))


def _source_of(text: str) -> str:
    """A script or style as a policy allows it: by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def bundle() -> str:
    """All modules that `main.js` needs, as one script: each is a function of its own."""
    done: dict[str, str] = {}
    _add(ENTRY, done)
    return "".join(done.values())


def _add(name: str, done: dict[str, str]) -> None:
    if name in done:
        return
    folder = STATIC if (STATIC / name).exists() else SHARED
    text = (folder / name).read_text("utf-8")
    for imported in _IMPORT.finditer(text):
        _add(imported[2], done)
    exports = ", ".join(export[2] for export in _EXPORT.finditer(text))
    text = _IMPORT.sub(lambda m: f"const {{{_renamed(m[1])}}} = {_variable(m[2])};\n", text)
    text = _EXPORT.sub(r"\1", text)
    done[name] = (
        f'const {_variable(name)} = (() => {{\n"use strict";\n{text}'
        f"return {{ {exports} }};\n}})();\n"
    )


def _renamed(names: str) -> str:
    return names.replace(" as ", ": ")


def _variable(name: str) -> str:
    return f"module_{re.sub(r'[^a-z_]', '_', name.removesuffix('.js'))}"


def write_index(file: Path, title: str, data: Sequence[str] = ()) -> None:
    """Write a page, unless somebody else's stands there.

    Raises:
        InputError: somebody else's does.
        StorageError: the disk refuses.
    """
    if is_others(file):
        raise InputError(
            f"{as_text(file)} was not made by this program and is left as it is; move it away to "
            "have the gallery there."
        )
    write_atomically(file, page_text(title, data), sync=False)


def is_others(file: Path) -> bool:
    """Whether a file is there that is no gallery."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return f'content="{MARK}"' not in stream.read(MOST_HEAD)
    except FileNotFoundError:
        return False
    except OSError:
        return True
