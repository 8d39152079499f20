"""Files of a repository that was cloned without its large files: Git LFS left pointers to them."""

from pathlib import Path

_START = b"version https://git-lfs.github.com/spec/"
_MOST = 1024  # bytes: no pointer is larger
HOW_TO_GET = (
    "get the files with `git lfs install && git lfs pull` in that repository, or download it with "
    "`hf download`"
)


def is_pointer(file: Path) -> bool:
    """Whether a file is there, and stands for another one that was not fetched."""
    try:
        if not 0 < file.stat().st_size <= _MOST:
            return False
        with file.open("rb") as stream:
            return stream.read(len(_START)) == _START
    except OSError:
        return False
