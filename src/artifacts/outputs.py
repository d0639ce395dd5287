"""Where an answer may be written: over nothing that the same command did not write before."""

import json
from collections.abc import Callable
from pathlib import Path

from src.artifacts.files import sha256_file
from src.errors import UserError


def check_output(
    output: Path,
    suffix: str,
    is_ours: Callable[[Path], bool],
    *,
    read: Path | None = None,
    beside: str | None = None,
    is_own_place: bool = False,
) -> None:
    """Raise where a command must not write a file.

    Args:
        output: the file.
        suffix: that its name must end with, such as `.csv`.
        is_ours: whether the file there is what this command wrote; asked only where it, or what
            lies `beside` it, is there.
        read: a folder whose files are read: nothing is written inside.
        beside: suffix of a second file that is written with it.
        is_own_place: nobody named it, and its folder is made where needed.

    Raises:
        UserError: another suffix, a folder, no folder to write in, inside `read`, or a file of
            somebody else in its place.
    """
    where = f"{output}" if is_own_place else f"--output {output}"
    try:
        if output.suffix.lower() != suffix:
            raise UserError(f"{where}: want a name that ends with {suffix}")
        if output.is_dir() or not (is_own_place or output.resolve().parent.is_dir()):
            raise UserError(f"{where}: want a file in a folder that exists")
        if read is not None and output.resolve().is_relative_to(read.resolve()):
            raise UserError(f"{where}: lies inside {read}, which is read; write it elsewhere")
        written = [output, *([output.with_suffix(beside)] if beside else [])]
        there = [path for path in written if path.exists() or path.is_symlink()]
        if there and not is_ours(output):
            raise UserError(
                f"{where}: {there[0]} is there, and not as this command wrote it; remove it, or "
                "take another name"
            )
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a NUL byte, ...
        raise UserError(f"{where}: no place for a file ({error})") from None


def check_submission(
    path: Path, key: str, *, read: Path | None = None, is_own_place: bool = True
) -> None:
    """Raise as `check_output` where a CSV of answers, and the JSON beside it, must not be written.

    Where this command wrote them, the JSON has that `key`. Answers that were edited since are
    somebody else's.
    """
    check_output(
        path, ".csv", lambda it: wrote_answers(it, key), read=read, beside=".json",
        is_own_place=is_own_place,
    )  # fmt: skip


def wrote_answers(path: Path, key: str) -> bool:
    """Tell whether the JSON beside a CSV of answers has a key and names the CSV as it is now.

    The CSV may be missing: then a command was killed between the two.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        known = record["submission_sha256"]
        return key in record and (not path.exists() or sha256_file(path) == known)
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return False
