"""Where the frames that DeepfakeBench's JSON names lie here."""

import re

from src.errors import UserError

_DRIVE = re.compile(r"^[A-Za-z]:")
_KEPT = 3  # folders and name of a path that must fit a file before what stands above is dropped


class Renamer:
    """From the paths of a JSON to those of the data set's folder.

    Args:
        on_disk: logical paths of the files that are there.
        root: `root:` of dataset.yaml, (start, what goes in its place).
    """

    def __init__(self, on_disk: set[str], root: tuple[str, str] | None) -> None:
        self._on_disk = on_disk
        self._root = root
        self._dropped: dict[str, int] = {}

    def __call__(self, where: str, keys: tuple[str, ...], frame: str) -> str:
        """Return where a frame should lie, relative to the data set's folder.

        Args:
            where: the JSON, for messages.
            keys: those that lead to the video in it.
            frame: as it stands there.

        Raises:
            UserError: it does not start as `root:` says, or leads out of the folder.
        """
        path = _DRIVE.sub("", frame.replace("\\", "/")).strip("/")
        if self._root is not None:
            start, to = (_DRIVE.sub("", p.replace("\\", "/")).strip("/") for p in self._root)
            if start and path != start and not path.startswith(start + "/"):
                raise UserError(
                    f"{where}: {' > '.join(keys)}: frame {frame!r} does not start with "
                    f"{self._root[0]!r} (dataset.yaml: root.from)"
                )
            path = "/".join(filter(None, (to, path[len(start) :].strip("/"))))
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UserError(
                f"{where}: {' > '.join(keys)}: frame {frame!r} leads out of the data set's folder "
                "(`..`); nothing outside it is read"
            )
        path = "/".join(parts)
        return path if self._root is not None or path in self._on_disk else self._drop(path, parts)

    def _drop(self, path: str, parts: list[str]) -> str:
        """Cut off the folders that the JSON's author had above the data."""
        for prefix in self._dropped:
            if path.startswith(prefix):
                self._dropped[prefix] += 1
                return path[len(prefix) :]
        for count in range(1, len(parts) - _KEPT + 1):
            if "/".join(parts[count:]) in self._on_disk:
                self._dropped["/".join(parts[:count]) + "/"] = 1
                return "/".join(parts[count:])
        return path

    def notes(self) -> list[str]:
        """Say which folders were dropped."""
        return [
            f"{count} paths begin with {prefix}, which is not here: dropped"
            for prefix, count in self._dropped.items()
        ]
