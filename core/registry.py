"""Things that files register themselves, found by listing the package in which the files lie."""

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Generic, TypeVar

from core.errors import InputError

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """What the files of one package register, by name.

    The package is listed at the first look-up, so that to import a registry costs nothing.

    Args:
        what: one entry, as messages call it.
        package: of the files; each of them registers what it has when it is imported.
    """

    def __init__(self, what: str, package: str) -> None:
        self._what = what
        self._package = package
        self._found: dict[str, T] = {}
        self._listed = False

    def add(self, name: str, thing: T, again: bool = False) -> T:
        """Register; a file calls it at its top level.

        Args:
            again: it takes the place of what the same file registered before.
        """
        if again:
            self._found[name] = thing
        elif self._found.setdefault(name, thing) is not thing:
            raise ValueError(f"two files register the {self._what} {name!r}")
        return thing

    def add_one(self, name: str) -> Callable[[C], C]:
        """A decorator of a class without arguments: one object of it is registered."""

        def register(kind: C) -> C:
            self.add(name, kind())
            return kind

        return register

    def register(self, name: str) -> Callable[[C], C]:
        """A decorator of a class that is registered itself."""

        def register(kind: C) -> C:
            self.add(name, kind)  # type: ignore[arg-type]
            return kind

        return register

    def __getitem__(self, name: str) -> T:
        """The thing of that name.

        Raises:
            InputError: there is none.
        """
        try:
            return self._found[name]
        except KeyError:
            self.load()
        if name not in self._found:
            known = ", ".join(sorted(self._found))
            raise InputError(f"There is no {self._what} {name!r}; there are {known}.")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        """All names, sorted."""
        self.load()
        return iter(sorted(self._found))

    def values(self) -> list[T]:
        """All things, in the order of their names."""
        return [self._found[name] for name in self]

    def load(self) -> None:
        """Import every file of the package, if that is not done."""
        if self._listed:
            return
        for module in sorted(
            m.name for m in pkgutil.iter_modules(import_module(self._package).__path__)
        ):
            import_module(f"{self._package}.{module}")
        self._listed = True


def named_object(place: str) -> Any:
    """What `package.module:name` stands for; its module is imported only now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
