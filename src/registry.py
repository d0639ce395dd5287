"""One registry class for everything that is looked up by name."""

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Generic, TypeVar

from src.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things; a duplicate or an unknown name raises, never falls back to a default."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under `name`.

        Raises:
            ValueError: the name is taken.
        """

        def add(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"{self.what} {name!r} is registered twice")
            self._things[name] = thing
            return thing

        return add

    def get(self, name: str) -> T:
        """Return the thing called `name`.

        Raises:
            UserError: there is none; the message lists what exists.
        """
        if name not in self._things:
            raise unknown_name(self.what, name, self._things)
        return self._things[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._things)

    def in_order(self) -> list[T]:
        """Return all things in the order in which they were registered."""
        return list(self._things.values())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the sorted names."""
        return iter(self.names())


def import_all(package: str) -> None:
    """Import every module of a package, so that what they register is there: a new file is enough.

    Args:
        package: dotted name; called as `import_all(__name__)` at the end of its `__init__`.
    """
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
