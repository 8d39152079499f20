"""What the pages have in common: scripts and styles that know neither a server nor a folder."""

from pathlib import Path

FOLDER = Path(__file__).parent / "static"
