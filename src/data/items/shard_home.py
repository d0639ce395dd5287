"""Where shards lie: a folder of this machine, or any place that fsspec opens; what they hold.

A home holds `train-000000.tar` ..., `index.parquet` (a row an item), `submission.parquet` (where
there are test items) and, written last of all, `shards.json`, which names them all with their sizes
and SHA-256.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from src import paths
from src.artifacts.atomic import atomic_path
from src.artifacts.files import read_json, sha256_json
from src.data.items.dataset_yaml import DatasetConfig, read_dataset_yaml
from src.errors import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ABOUT, INDEX, SUBMISSION = "shards.json", "index.parquet", "submission.parquet"
SCHEMA = 1
KEYS = (
    "name", "plan", "items", "files", "shards", "labels", "settings", "submission", "from_splits",
    "notes", "ignored",
)  # fmt: skip
WAYS = "python -m src shards --check"
_TRIES, _PAUSE = 3, 1.0  # of what a network did not give; seconds, doubled each time
_LOCAL = ("file://", "local://")
T = TypeVar("T")


@dataclass(frozen=True)
class ShardHome:
    """A place that holds shards."""

    place: str  # an absolute path, or `s3://bucket/folder`
    cache_gb: float | None = None  # as of `ShardsConfig`

    @property
    def is_remote(self) -> bool:
        """Tell whether fsspec opens it."""
        return is_remote(self.place)

    def join(self, name: str) -> str:
        """Return where a file of it lies; a UserError for a name that leads elsewhere."""
        paths.check_plain(name, f"{self.place}: file")
        return f"{self.place.rstrip('/')}/{name}"

    def fs(self) -> "AbstractFileSystem":
        """Return what opens a remote place, one of this process."""
        return _filesystem(self.place, os.getpid())

    def facts(self, name: str) -> tuple[int, str]:
        """Return a file's size, and what changes when it is written again.

        Raises:
            FileNotFoundError: it is not there.
            UserError: the place does not answer.
        """
        where = self.join(name)
        if not self.is_remote:
            stat = os.stat(where)  # noqa: PTH116 - as in `files.stamp_of`
            return stat.st_size, f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
        info = _retried(where, lambda: self.fs().info(where))
        changes = [info.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "created")]
        return int(info["size"]), sha256_json([str(one) for one in changes])

    def pieces(self, name: str, size: int, each: int) -> Iterator[bytes]:
        """Yield the bytes of a file of a known size, so many at a time; raises as `facts`."""
        if self.is_remote:
            for start in range(0, size, each):
                yield self.read(name, start, min(start + each, size))
            return
        with open(self.join(name), "rb", buffering=0) as file:  # noqa: PTH123
            while data := file.read(each):
                yield data

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes of a file of a remote place, or some of them; raises as `facts`."""
        where = self.join(name)
        data = _retried(where, lambda: self.fs().cat_file(where, start=start, end=end))
        assert isinstance(data, bytes)
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file of a remote place; it is there when all of it is.

        Raises:
            UserError: the place does not take it.
        """
        where = self.join(name)
        _retried(where, lambda: self.fs().pipe_file(where, data))

    def put(self, path: Path, name: str) -> None:
        """Copy a file of this machine to a remote place; as `write`."""
        where = self.join(name)
        _retried(where, lambda: self.fs().put_file(str(path), where))

    def about(self) -> dict[str, Any]:
        """Return what `shards.json` says, checked.

        Raises:
            UserError: it is not there (so the shards are not whole), damaged, of another version,
                or names a file that leads elsewhere.
        """
        try:
            found = self.facts(ABOUT)
        except FileNotFoundError:
            raise UserError(
                f"{self.place} holds no {ABOUT}, which is written last: the shards are not whole. "
                "Where they are written (`python -m src shards --data NAME --to ...`), the same "
                "command goes on; else copy what is missing"
            ) from None
        except OSError as error:
            raise UserError(f"{self.place}: {error}") from None
        return _about(self, found)


def is_remote(place: str) -> bool:
    """Tell whether a path is one for fsspec."""
    return "://" in place and not place.startswith(_LOCAL)


def home_at(place: str, beside: Path | None = None, cache_gb: float | None = None) -> ShardHome:
    """Return the home at a path, which may be relative to the folder `beside`."""
    if is_remote(place):
        return ShardHome(place.rstrip("/"), cache_gb)
    for prefix in _LOCAL:
        place = place.removeprefix(prefix)
    whole = os.path.abspath((beside or Path()) / Path(place).expanduser())  # noqa: PTH100
    return ShardHome(whole, cache_gb)


def home_of(root: Path, config: DatasetConfig) -> ShardHome | None:
    """Return the home of a data set's shards; None where it is no data set of shards.

    Raises:
        UserError: there are two.
    """
    inside = (root / ABOUT).is_file()
    if config.shards is None:
        return home_at(str(root)) if inside else None
    home = home_at(config.shards.path, root, config.shards.cache_gb)
    if inside and home.place != home_at(str(root)).place:
        raise UserError(
            f"{root} holds shards, and its dataset.yaml names others ({home.place}); keep one"
        )
    return home


@lru_cache(maxsize=64)
def home_of_folder(folder: str) -> ShardHome:
    """Return the home of the shards of a data set's folder; itself where nothing else is said."""
    root = Path(folder)
    config = read_dataset_yaml(root, paths.readable(paths.dataset_yaml(root.name)))
    return home_of(root, config) or home_at(folder)


@lru_cache(maxsize=64)
def _filesystem(place: str, pid: int) -> "AbstractFileSystem":  # noqa: ARG001 - a fork opens its own
    import fsspec  # only where something lies elsewhere

    protocol = place.partition("://")[0].rpartition("::")[2]
    try:
        return fsspec.core.url_to_fs(place)[0]
    except ImportError as error:
        raise UserError(
            f"{place}: {error} (fsspec opens {protocol}:// by a package of its own, which is not "
            "installed here)"
        ) from None
    except ValueError as error:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise UserError(f"{place}: {error}; fsspec knows {known}") from None


@lru_cache(maxsize=64)
def _about(home: ShardHome, found: tuple[int, str]) -> dict[str, Any]:  # noqa: ARG001 - read anew when changed
    where, what = home.join(ABOUT), "list of shards"
    if home.is_remote:
        copy = paths.shard_blocks(sha256_json(home.place)[:16]) / ABOUT
        with atomic_path(copy) as temporary:
            temporary.write_bytes(home.read(ABOUT))
    else:
        copy = Path(where)
    try:
        about = read_json(copy, schema=SCHEMA, what=what, keys=KEYS, sealed=True)
    except UserError as error:
        raise UserError(str(error).replace(str(copy), where)) from None
    for name in (*about["shards"], *about["files"]):
        paths.check_plain(name, f"{where}: file")
    return about


def _retried(where: str, ask: Callable[[], T]) -> T:
    """Return what a network gives, asked again where it fails."""
    for number in range(_TRIES):
        try:
            return ask()
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:  # noqa: BLE001 - each protocol has errors of its own
            if number == _TRIES - 1:
                kind = type(error).__name__
                raise UserError(f"{where}: did not answer ({kind}: {error})") from None
            time.sleep(_PAUSE * 2**number)
    raise AssertionError("unreachable")
