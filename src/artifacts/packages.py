"""Files that installed packages carry: no hub, no network, and the same bytes everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from src import paths
from src.artifacts.files import sha256_file
from src.errors import UserError


def is_installed(module: str) -> bool:
    """Tell whether a top-level module with code is there; it is not loaded.

    A mere folder of that name on the path (`wandb/` of its own runs, `openvino/` of exported files)
    could be imported too, and is empty.
    """
    spec = util.find_spec(module)
    return spec is not None and spec.origin is not None


@dataclass(frozen=True)
class Package:
    """A package of the Python registry that carries weights; its code is not run to find them."""

    name: str  # as pip knows it
    version: str
    folder: str  # the module that it installs
    files: Mapping[str, str]  # what is taken of it, within that folder, with the SHA-256 of each
    licence: str  # of what is taken
    pip: str = ""  # options of `pip install`, where it must not do what it would by itself
    hint: str = "`make setup` brings it"
    licence_file: str = ""  # among its files; asked for where a copy is passed on

    @property
    def install(self) -> str:
        """What to type where it is absent."""
        words = ("pip install", self.pip, f"{self.name}=={self.version}")
        return " ".join(filter(None, words))

    def folders(self) -> list[Path]:
        """Return where its module lies: in the bundle that this code came in, else as installed."""
        packed = paths.packed_packages() / self.folder
        if paths.bundle_contents().is_file() and packed.is_dir():
            return [packed]
        spec = util.find_spec(self.folder)  # which imports nothing of a top-level package
        # not `origin`, which a package without an `__init__.py` lacks
        return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]

    def file(self, name: str, wanted_by: str, instead: str = "") -> Path:
        """Return one of its files, checked.

        Args:
            name: a key of `files`.
            wanted_by: what a message begins with.
            instead: what else can be done, the end of a message.

        Raises:
            UserError: it is not installed, or lacks the file, or holds another.
        """
        folders = self.folders()
        end = f"; {instead}" if instead else ""
        if not folders:
            raise UserError(
                f"{wanted_by} wants {self.name}, which is not installed: {self.install} "
                f"({self.hint}){end}"
            )
        path = next((place / name for place in folders if (place / name).is_file()), None)
        again = self.install.replace("install", "install --force-reinstall", 1)
        if path is None:
            raise UserError(f"{folders[0]}: no {name} in {self.installed()}: {again}{end}")
        found, want = sha256_file(path), self.files[name]
        if found != want:
            raise UserError(
                f"{path} is not the file that {self.name} {self.version} was published with "
                f"(sha256 {found[:12]}..., want {want[:12]}...), so it is damaged or another one: "
                f"{again}{end}"
            )
        return path

    def installed(self) -> str:
        """Return its name, and its version where it was installed and not merely copied."""
        try:
            return f"{self.name} {metadata.version(self.name)}"
        except metadata.PackageNotFoundError:
            return self.name

    def licence_text(self) -> str:
        """Return its licence, which asks to be passed on with every copy.

        Raises:
            UserError: it is not there.
        """
        for place in self.folders():
            if (place / self.licence_file).is_file():
                return (place / self.licence_file).read_text(encoding="utf-8")
        try:
            text = metadata.distribution(self.name).read_text(self.licence_file)
        except metadata.PackageNotFoundError:
            text = None
        if text is None:
            raise UserError(f"the licence of {self.name} is not there; install it: {self.install}")
        return text
