"""Where the frames that DeepfakeBench's JSON names lie here."""

import re
from collections import Counter
from collections.abc import Hashable

from src.errors import UserError

_DRIVE = re.compile(r"^[A-Za-z]:")
_KEPT = 3  # folders and name of a path that must fit a file before what stands above is dropped


class Renamer:
    """From the paths of several JSON to those of the data set's folder.

    Args:
        on_disk: logical paths of the files that are there.
        root: `root:` of dataset.yaml, (start, what goes in its place).
    """

    def __init__(self, on_disk: set[str], root: tuple[str, str] | None) -> None:
        self._on_disk = on_disk
        self._root = root
        self._videos: dict[Hashable, dict[str, str]] = {}  # video -> path -> what is dropped of it
        self._where: dict[str, str] = {}  # what is dropped -> the first JSON that has it
        self._lost: dict[str, str] = {}  # what is not dropped after all -> what fits better

    def add(self, where: str, keys: tuple[str, ...], video: Hashable, frame: str) -> None:
        """Note a frame of a video.

        Args:
            where: the JSON, for messages.
            keys: those that lead to the video in it.
            video: what `places` calls it.
            frame: as it stands there.

        Raises:
            UserError: it does not start as `root:` says, or leads out of the folder.
        """
        path = self._tidy(where, keys, frame)
        paths = self._videos.setdefault(video, {})
        if path not in paths:
            known = self._root is not None or path in self._on_disk
            paths[path] = "" if known else self._dropped_of(where, path)

    def places(self) -> dict[Hashable, list[str]]:
        """Return the files of each video, relative to the data set's folder, in order.

        Where dropping leads two videos to one file, what drops nothing is right, or else the JSON
        of which more is there; the other's files are missing.

        Raises:
            UserError: none of two fits better.
        """
        self._settle()
        return {
            video: list(
                dict.fromkeys(
                    path if start in self._lost else path[len(start) :]
                    for path, start in paths.items()
                )
            )
            for video, paths in self._videos.items()
        }

    def notes(self) -> list[str]:
        """Say which folders were dropped."""
        counts = Counter(start for paths in self._videos.values() for start in paths.values())
        return [
            f"{counts[start]} paths begin with {start}, which is not here: dropped"
            if start not in self._lost
            else f"WARNING {counts[start]} paths of {self._where[start]} begin with {start}, which "
            f"is not here; without it they would be files of other videos ({self._lost[start]}): "
            "counted as missing"
            for start in self._where
        ]

    def _tidy(self, where: str, keys: tuple[str, ...], frame: str) -> str:
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
        return "/".join(parts)

    def _dropped_of(self, where: str, path: str) -> str:
        """Return what to cut off: the folders that the JSON's author had above the data."""
        for start in self._where:
            if path.startswith(start):
                return start
        parts = path.split("/")
        for count in range(1, len(parts) - _KEPT + 1):
            if "/".join(parts[count:]) in self._on_disk:
                start = "/".join(parts[:count]) + "/"
                self._where[start] = where
                return start
        return ""

    def _settle(self) -> None:
        """Find what must not be dropped, for another video has the files that are left."""
        owners: dict[str, tuple[Hashable, str, str]] = {}
        rivals: dict[tuple[str, str], str] = {}  # two that lead to one file, and that file
        for video, paths in self._videos.items():
            for path, start in paths.items():
                file = path[len(start) :]
                other, theirs, before = owners.setdefault(file, (video, path, start))
                if other != video and theirs != path:
                    rivals.setdefault((min(before, start), max(before, start)), file)
        shares = self._shares() if rivals else {}
        for one, two in rivals:
            if shares[one] != shares[two]:
                worse, better = sorted((one, two), key=lambda start: shares[start])
                self._lost[worse] = f"begin with {better}" if better else "stand there in full"
        for (one, two), file in rivals.items():
            if one not in self._lost and two not in self._lost:
                raise UserError(
                    f"{file}: paths of two videos lead there, {one + file} ({self._where[one]}) "
                    f"and {two + file} ({self._where[two]}); whose is it? Move the files into the "
                    "folder that stands before them in the right one, or name the right JSON in "
                    "dataset.yaml: `json: NAME.json`"
                )

    def _shares(self) -> dict[str, float]:
        """Return what is dropped -> the share of its files that are here, 2 for nothing."""
        named: Counter[str] = Counter()
        here: Counter[str] = Counter()
        for paths in self._videos.values():
            for path, start in paths.items():
                named[start] += 1
                here[start] += path[len(start) :] in self._on_disk
        return {start: here[start] / named[start] if start else 2.0 for start in named}
