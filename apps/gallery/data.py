"""Items as the page's scripts read them: JavaScript that calls `gallery`, in plain ASCII.

No text of a user can end a script: what HTML reads as markup is written as an escape.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.gallery.items import Item, Verdict
from apps.gallery.places import source_copy, thumbnail, url, url_from
from apps.gallery.timeline import Session
from core.paths import on_disk, printable

EACH = 500  # items of a chunk
SMALL_SIDE, SMALL_BYTES = 512, 200_000  # a picture within both is shown as it is
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
_LEFT_OUT = ("metadata", "output_path", "task_id", "kind", "seed", "seed_is_random")
_EXACT = 2**53  # larger numbers lose digits in a browser


def script(function: str, *values: Any) -> str:
    """A call of one of the page's functions."""
    texts = (json.dumps(value, separators=(",", ":")).translate(_ESCAPES) for value in values)
    return f"gallery.{function}({','.join(texts)});\n"


def needs_thumbnail(item: Item) -> bool:
    """The picture is too large to be shown as it is among hundreds of others."""
    if item.file is None or item.sha256 is None:
        return False
    sides = [item.used.get("width"), item.used.get("height")]
    known = [side for side in sides if isinstance(side, int | float)]
    return item.size > SMALL_BYTES or len(known) < 2 or max(known) > SMALL_SIDE


def chunks(folder: Path, items: Sequence[Item], page: Path | None = None) -> list[str]:
    """All items, as scripts of `EACH`."""
    rows = [item_row(folder, item, page or folder) for item in items]
    parts = (rows[start : start + EACH] for start in range(0, len(rows), EACH))
    return [script("add", number, part) for number, part in enumerate(parts)]


def item_row(folder: Path, item: Item, page: Path) -> dict[str, Any]:
    """One item, without what it does not have.

    Args:
        page: the folder in which the page lies.
    """

    def link(path: str) -> str:
        return url(path) if page == folder else url_from(page, folder / on_disk(path))

    metadata = item.task.get("metadata")
    tweet = metadata.get("tweet_text") if isinstance(metadata, dict) else None
    seed = item.task.get("seed")
    is_small = item.file is not None and not needs_thumbnail(item)
    given = _outside(folder, item.given, page, link) if item.given else {}
    row = {
        "id": item.id,
        "batch": item.batch,
        "place": item.position,
        "name": item.name,
        "kind": item.kind,
        "state": item.state,
        "url": link(item.file) if item.file else None,
        "file": printable(item.file) if item.file else None,
        "thumb": link(thumbnail(item.sha256))
        if item.sha256 and item.file and not is_small
        else None,
        **({} if item.is_missing else given),
        "given": bool(given),
        "missing": item.is_missing,
        "task": {k: v for k, v in item.task.items() if k not in _LEFT_OUT and _says(v)},
        "seed": str(seed) if isinstance(seed, int) else None,
        "tweet": tweet if isinstance(tweet, str) else None,
        "used": {k: v for k, v in item.used.items() if k != "scores" and _says(v)},
        "worker": item.worker,
        "seconds": round(item.seconds, 3),
        "attempts": item.attempts,
        "at": round(item.updated, 2),
        "error": item.error,
        "cause": item.cause,
        "category": item.category,
        "choice": item.choice,
        "sources": [_outside(folder, path, page, link) for path in item.sources],
        "verdicts": [verdict_row(verdict) for verdict in item.verdicts],
    }
    return {key: value for key, value in row.items() if _says(value)}


def _outside(folder: Path, path: str, page: Path, link: Any) -> dict[str, Any]:
    """A picture that the folder does not have itself: its copy, and where it lies."""
    return {
        "thumb": link(source_copy(path)),
        "url": url_from(page, folder / on_disk(path)),
        "file": printable(path),
    }


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    row = {
        "judge": verdict.judge,
        "scores": verdict.scores,
        "calls": verdict.calls,
        "error": verdict.error,
    }
    return {key: value for key, value in row.items() if _says(value)}


def _says(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {} and value is not False


def timeline_rows(sessions: Sequence[Session], places: Mapping[str, int]) -> list[dict[str, Any]]:
    """Runs with what each worker did: kind, start and length in seconds, and the item's place.

    Args:
        places: of items among all, by their ids.
    """
    return [
        {
            "start": round(session.start, 2),
            "end": round(session.end, 2),
            "lanes": [
                {
                    "worker": worker,
                    "segments": [
                        [
                            s.doing,
                            round(s.start - session.start, 2),
                            round(s.end - s.start, 2),
                            places.get(s.key, -1) if s.key is not None else -1,
                            s.outcome or "",
                        ]
                        for s in segments
                    ],
                }
                for worker, segments in session.lanes.items()
            ],
        }
        for session in sessions
    ]
