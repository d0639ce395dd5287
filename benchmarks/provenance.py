"""What files say of themselves: a table of any files, and that no file breaks a reader.

    python -m benchmarks.provenance FILES_OR_FOLDERS... [--rows N] [--sample N]

Folders are searched for pictures and clips, zips too (a member at a time, in a temporary folder).
Prints a row for each of the first `--rows` files: what it is and what was found, source by source;
then how many files said what, why sources were not read, and milliseconds a file. A source that
fails with an error which nobody foresaw counts as broken, though the file's other findings stay.
"""

import argparse
import random
import re
import sys
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src.data.items.files import kind_of
from src.data.provenance.opened import OpenedFile
from src.data.provenance.read import Provenance, provenance_of

SEED = 0
_UNFORESEEN = re.compile(r"damaged: \w*(?:Error|Exception|Interrupt|Warning|Exit): ")
_SHORT = 48


def members(path: Path, most: int | None) -> Iterator[str]:
    """Yield the pictures and clips of a zip, at random where not all are wanted."""
    with zipfile.ZipFile(path) as file:
        names = sorted(name for name in file.namelist() if kind_of(name))
    if most is not None and len(names) > most:
        names = random.Random(SEED).sample(names, most)
    yield from names


def files_of(places: list[Path], most: int | None, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield a name and a file on disk for every picture and clip."""
    for place in places:
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in found:
            if path.suffix.lower() == ".zip":
                with zipfile.ZipFile(path) as file:
                    for name in members(path, most):
                        there = folder / f"member{Path(name).suffix}"
                        there.write_bytes(file.read(name))
                        yield f"{path.name}!/{name}", there
            elif path.is_file() and (kind_of(path.name) or path == place):
                yield str(path.relative_to(place) if place.is_dir() else path.name), path


def row_of(found: Provenance) -> str:
    """Return what was found, source by source: meanings, with their values cut short."""
    by_source: dict[str, dict[str, None]] = defaultdict(dict)
    for one in found.findings:
        value = " ".join(one.value.split()).replace("|", "/")
        value = value if len(value) <= _SHORT else f"{value[: _SHORT - 3]}..."
        shown = (
            one.means if one.means in ("place", "thumbnail", "prompt") else f"{one.means} {value}"
        )
        by_source[one.source][f"{shown} ({one.strength})" if "sign" in one.strength else shown] = (
            None
        )
    return "; ".join(f"**{source}** {', '.join(said)}" for source, said in by_source.items())


def main() -> int:
    """Print the table and the counts; 1 where a reader broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--sample", type=int, help="of each zip, as many at most")
    options = parser.parse_args()
    sources, meanings, reasons, kinds = Counter(), Counter(), Counter(), Counter()
    took, broken = [], []
    with tempfile.TemporaryDirectory() as folder:
        print("| file | kind | what it says | not read |\n|---|---|---|---|")
        for number, (name, path) in enumerate(
            files_of(options.places, options.sample, Path(folder))
        ):
            start = time.perf_counter()
            try:
                found = provenance_of(path, Path(name).name)
            except Exception as error:  # noqa: BLE001 - to be counted
                broken.append(f"{name}: {type(error).__name__}: {error}")
                continue
            took.append(1000 * (time.perf_counter() - start))
            kind = OpenedFile(path).kind
            kinds[kind] += 1
            sources.update({one.source for one in found.findings})
            meanings.update({one.means for one in found.findings})
            reasons.update(f"{s}: {why.partition(':')[0]}" for s, why in found.not_read.items())
            broken += [f"{name}: {s}: {why}" for s, why in found.not_read.items()
                       if _UNFORESEEN.match(why)]  # fmt: skip
            if number < options.rows:
                not_read = "; ".join(f"{s}: {why}" for s, why in found.not_read.items())
                print(f"| {name} | {kind} | {row_of(found)} | {not_read[:120]} |")
    for title, counts in (("kinds", kinds), ("sources", sources), ("meanings", meanings),
                          ("not read", reasons)):  # fmt: skip
        print(f"{title}: {', '.join(f'{key} {count:,}' for key, count in counts.most_common())}")
    if took:
        middle, high = np.percentile(took, [50, 95])
        print(f"{len(took):,} files, {middle:.2f} ms (95 %: {high:.2f}, most: {max(took):.1f})")
    for one in broken[:20]:
        print(f"broken: {one}")
    print(f"{'short' if broken else 'ok'} {len(broken)} broken readers (target 0)")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
