"""Results of runs in the folders of a folder, for whoever named the one above them."""

from pathlib import Path

from core.paths import as_text

MOST_NAMED = 3


def runs_below(folder: Path, file: str = "ledger.sqlite") -> str:
    """The end of an error: the folders that may have been meant, the newest first.

    Args:
        file: what a folder of the kind that is wanted has.
    """
    found = sorted(folder.glob(f"*/{file}"), key=_age)
    names = [as_text(run.parent) for run in found[:MOST_NAMED]]
    if not names:
        return ""
    end = f" There are {len(found)} such folders." if len(found) > len(names) else ""
    return f" Did you mean {' or '.join(names)}?{end}"


def _age(file: Path) -> float:
    try:
        return -file.stat().st_mtime
    except OSError:
        return 0.0
