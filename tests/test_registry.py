"""What files register, and when their package is looked through."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import InputError
from core.registry import Registry, named_object

PACKAGE = "registered_here"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose files tell `sys` when they are imported."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name in ("second", "first"):
        (folder / f"{name}.py").write_text(f"import sys\nsys.imported_here.append({name!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "imported_here", [], raising=False)
    yield folder
    for module in [m for m in sys.modules if m.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


def imported() -> list[str]:
    return list(sys.imported_here)  # type: ignore[attr-defined]


def test_no_file_is_imported_before_it_is_needed(package: Path) -> None:
    registry: Registry[int] = Registry("number", PACKAGE)
    registry.add("one", 1)
    assert registry["one"] == 1
    assert imported() == []


def test_what_is_not_known_yet_is_looked_for_in_every_file(package: Path) -> None:
    registry: Registry[int] = Registry("number", PACKAGE)
    registry.add("one", 1)
    with pytest.raises(InputError, match=r"There is no number 'two'; there are one\."):
        registry["two"]
    assert imported() == ["first", "second"]


def test_names_come_in_order(package: Path) -> None:
    registry: Registry[int] = Registry("number", PACKAGE)
    registry.add("b", 2)
    registry.add("a", 1)
    assert list(registry) == ["a", "b"]
    assert registry.values() == [1, 2]
    assert "a" in registry and "c" not in registry


def test_two_files_cannot_take_one_name() -> None:
    registry: Registry[str] = Registry("word", PACKAGE)
    registry.add("a", "first")
    with pytest.raises(ValueError, match="two files register the word 'a'"):
        registry.add("a", "second")


def test_a_file_that_is_imported_again_registers_what_it_had(package: Path) -> None:
    registry: Registry[str] = Registry("word", PACKAGE)
    assert registry.add("a", "first") == registry.add("a", "first")


def test_an_object_is_found_by_module_and_name(package: Path) -> None:
    (package / "third.py").write_text("ANSWER = 42\n")
    assert named_object(f"{PACKAGE}.third:ANSWER") == 42
