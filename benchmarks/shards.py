"""Reading shards: two ranks that shuffle, beside one process that reads from start to end.

  python benchmarks/shards.py                      20 GB of items of about 200 kB
  python benchmarks/shards.py --gb 2               the same, smaller
  python benchmarks/shards.py --scratch DIR        where they go, else $TMPDIR; removed afterwards

The items are random bytes, written by the code that packs a data set. Turns alternate; before each
the shards are dropped from the page cache. Ranks read what `sampler: shards` gives them, batch by
batch, through the functions that training calls (`read_ahead`, `read_bytes`), checked by CRC;
nothing is decoded. Beside them: WebDataset's own reading of some of these tars in two processes
(three shards each, buffer of 1,000 items), and two ranks with `sampler: shuffle` on a tenth."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import numpy as np  # noqa: E402

BATCH, RANKS, MEAN, PIECE = 64, 2, 200_000, 16 * 2**20
SHARE = 0.9  # of the sequential rate


def make_shards(place: Path, total: int) -> None:
    """Write shards of about 1 GB, and their index."""
    from src.data.items.manifest import Dataset, make_items
    from src.data.items.shard_home import home_at
    from src.data.shards.describe import describe
    from src.data.shards.plan import make_plan
    from src.data.shards.tar import Packing, TarWriter

    rng = np.random.default_rng(0)
    count = total // MEAN
    sizes = rng.integers(MEAN // 2, MEAN * 3 // 2, count)
    ids = [f"i{row:07d}" for row in range(count)]
    items = make_items(
        {"item_id": ids, "path": [f"{one}.jpg" for one in ids], "kind": ["image"] * count,
         "split": ["train"] * count, "label": [row % 2 for row in range(count)],
         "group": [""] * count, "domain": [""] * count, "bytes": sizes.tolist()},
        list(range(count)),
    )  # fmt: skip
    dataset = Dataset("bench", place.parent / "none", items, [0] * count)
    noise = memoryview(rng.bytes(2**26))
    place.mkdir(parents=True)
    parts = {}
    for shard in make_plan(dataset, 10**9).shards:
        with (place / shard.name).open("wb") as file:
            tar = TarWriter(file)
            for row in shard.rows.tolist():
                start = row * 977 % (2**26 - 2 * MEAN)
                data = bytes(noise[start : start + int(sizes[row])])
                tar.add(
                    Packing(row, "train", ids[row], f"{ids[row]}.jpg", "", "", row % 2), data, None
                )
            parts[shard.name] = tar.end()
    describe(dataset, home_at(str(place)), "", {}, parts)
    os.sync()


def forget(place: Path) -> None:
    """Drop the shards from the page cache."""
    for shard in place.glob("*.tar"):
        fd = os.open(shard, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def sequential(place: Path) -> dict[str, float]:
    """Read all shards from start to end."""
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    for shard in sorted(place.glob("*.tar")):
        with shard.open("rb", buffering=0) as file:
            while data := file.read(PIECE):
                done += len(data)
    return {"bytes": done, "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def read_rank(name: str, root: str, rank: int, kind: str, share: float) -> dict[str, float]:
    """Read what a rank reads of an epoch; waits for a line on standard input first."""
    from src.data.batches.samplers import EpochPool, EpochSampler
    from src.data.batches.share import Share
    from src.data.items.files import read_ahead, read_bytes
    from src.data.items.shard_index import places_of
    from src.data.layouts.load import load_dataset
    from src.machine import keep_freed_memory

    keep_freed_memory()  # as all commands do
    dataset = load_dataset(name, Path(root))
    files = dataset.items["path"]
    places = places_of(files) if kind == "shards" else None
    rows = np.arange(int(len(files) * share))
    pool = EpochPool(rows, rows % 2, BATCH, places=None if places is None else places[rows])
    sampler, own = EpochSampler(pool, kind, 1), Share(rank, RANKS)
    files = files.tolist()
    print("ready", flush=True)
    sys.stdin.readline()
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    for key in sampler:
        paths = [files[row] for row in key.rows[own.of(BATCH)]]
        if kind == "shards":
            read_ahead(dataset.root, paths)
        done += sum(len(read_bytes(dataset.root, path)) for path in paths)
    return {"bytes": done, "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def read_webdataset(place: str, rank: int) -> dict[str, float]:
    """Read a rank's shards by WebDataset."""
    import webdataset

    tars = sorted(map(str, Path(place).glob("*.tar")))[: 3 * RANKS][rank::RANKS]
    print("ready", flush=True)
    sys.stdin.readline()
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    found = webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False).shuffle(1000)
    for sample in found:
        done += len(sample["jpg"])
    return {"bytes": done, "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def ranks(*command: str) -> dict[str, float]:
    """Start all ranks, let them begin together; what they read, in the time of the longest."""
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--rank", str(rank), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    forget(Path(os.environ["RVF_PLACE"]))
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    found = [json.loads(one.communicate()[0]) for one in started]
    return {
        "bytes": sum(f["bytes"] for f in found), "wall": max(f["wall"] for f in found),
        "cpu": sum(f["cpu"] for f in found),
    }  # fmt: skip


def show(what: str, found: dict[str, float]) -> float:
    """Print a row; returns MB a second."""
    rate = found["bytes"] / found["wall"] / 1e6
    print(
        f"  {what:<34} {found['bytes'] / 1e9:6.2f} GB {found['wall']:7.1f} s {rate:7.0f} MB/s "
        f"{found['cpu']:7.1f} CPU-s"
    )
    return rate


def compare(home: Path, turns: int) -> None:
    """Measure in turns, and say whether the target is met."""
    place = Path(os.environ["RVF_PLACE"])
    total = sum(shard.stat().st_size for shard in place.glob("*.tar"))
    print(f"{total / 1e9:.2f} GB in {len(list(place.glob('*.tar')))} shards")
    ratios = []
    for _ in range(turns):
        forget(place)
        alone = show("one process, start to end", sequential(place))
        both = show("two ranks, sampler: shards", ranks("--kind", "shards", "--root", str(home)))
        ratios.append(both / alone)
    if len(list(place.glob("*.tar"))) >= RANKS:
        show(
            "two processes, WebDataset, 3 each", ranks("--kind", "webdataset", "--root", str(place))
        )
    show("two ranks, sampler: shuffle, 10 %", ranks(
        "--kind", "shuffle", "--root", str(home), "--share", "0.1"
    ))  # fmt: skip
    ratio = float(np.median(ratios))
    word = "ok" if ratio >= SHARE else "short"
    each = ", ".join(f"{one:.2f}" for one in ratios)
    print(f"{word}: two ranks read at {ratio:.2f} of the sequential rate ({each}); want {SHARE}")


def main() -> None:
    """Run the benchmark, or one rank of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=20.0)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--kind", default="shards")
    parser.add_argument("--root", default="")
    parser.add_argument("--share", type=float, default=1.0)
    flags = parser.parse_args()
    if flags.rank is not None:
        if flags.kind == "webdataset":
            found = read_webdataset(flags.root, flags.rank)
        else:
            found = read_rank("bench", flags.root, flags.rank, flags.kind, flags.share)
        print(json.dumps(found))
        return
    scratch = Path(tempfile.mkdtemp(dir=flags.scratch, prefix="shards-"))
    try:
        os.environ["RVF_PLACE"] = str(scratch / "packed")
        os.environ["RVF_ROOT"] = str(scratch / "artefacts")
        start = time.perf_counter()
        make_shards(scratch / "packed", int(flags.gb * 1e9))
        print(f"written in {time.perf_counter() - start:.0f} s")
        folder = scratch / "input" / "bench"
        folder.mkdir(parents=True)
        (folder / "dataset.yaml").write_text(f"shards: {scratch / 'packed'}\n")
        compare(scratch / "input", flags.turns)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
