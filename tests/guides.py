"""Pages of docs/ that show files and commands, which tests write and run as they stand."""

import re

from tests.conftest import PROJECT


class Guide:
    """A page of docs/.

    Attributes:
        text: the whole page.
        lines: the commands that it shows.
    """

    def __init__(self, name: str) -> None:
        self.text = (PROJECT / "docs" / name).read_text("utf-8")
        self._blocks = re.findall(r"^```(\w*)\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)
        blank = [text for language, text in self._blocks if not language]
        self.lines = [line for text in blank for line in text.splitlines()]

    def shown(self, language: str) -> str:
        """The one text of a language that the page shows."""
        [text] = [text for found, text in self._blocks if found == language]
        return str(text)
