"""Pages of docs/ that show files and commands, which tests write and run as they stand."""

import re

from tests.conftest import PROJECT

SHELLS = ("", "bash", "sh")


class Guide:
    """A page of docs/.

    Attributes:
        text: the whole page.
        blocks: what it shows, each with its language.
        lines: the commands that it shows.
        spans: code within sentences.
        commands: lines, those of blocks for a shell, and those within sentences.
    """

    def __init__(self, name: str) -> None:
        self.text = (PROJECT / "docs" / name).read_text("utf-8")
        block = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
        self.blocks: list[tuple[str, str]] = block.findall(self.text)
        blank = [text for language, text in self.blocks if not language]
        self.lines = [line for text in blank for line in text.splitlines()]
        shells = [text for language, text in self.blocks if language in SHELLS]
        self.spans: list[str] = re.findall(r"`([^`]+)`", block.sub("", self.text))
        lines = [line for text in shells for line in text.splitlines()]
        self.commands = [line for line in [*lines, *self.spans] if line.startswith("python ")]

    def shown(self, language: str) -> str:
        """The one text of a language that the page shows."""
        [text] = self.all_shown(language)
        return text

    def all_shown(self, language: str) -> list[str]:
        """All texts of a language that the page shows."""
        return [text for found, text in self.blocks if found == language]
