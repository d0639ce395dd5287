"""A data set of millions of items: manifest, folds, hashing, near-duplicates; time, memory, growth.

  python benchmarks/scale.py                             1e4, 1e5, 1e6 items in zips; 1e5 in folders
  python benchmarks/scale.py --largest 100000            the same, smaller
  python benchmarks/scale.py --largest 10000000          1e7 too, and no hashes: 12 GiB of memory
  python benchmarks/scale.py --scratch DIR               where the files go (230 MB; 1e7: 5 GB)

Each row runs in a process of its own, so that its peak memory is its own. Times are CPU seconds
(all threads), with wall seconds beside them. The members are a few bytes each: the manifest comes
from names and CSV alone, and the folds from given groups without opening a file. A later start is a
process that goes on to the rows of its first batch and reads one file of it out of its zip.
Hashing and the search of near-duplicates are timed apart, on pictures and hashes made here."""

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import numpy as np  # noqa: E402

SEED, N_FOLDS = 42, 5
MOST_SECONDS, MOST_GIB, ITEMS = 180.0, 3.0, 1_000_000
MANY, MOST_MANY_GIB, MOST_START_CPU, MOST_START_GIB = 10_000_000, 12.0, 10.0, 2.0
STOP_GIB, STOP_SECONDS = 13, 540  # of a first build
MODEL = "compact32"
_START = ("imports", "cpu", "wall", "own", "mapped", "peak")  # of a later start: s, then GiB
SCHEME = f"sgkf{N_FOLDS}_s{SEED}_unscanned"


def make_data(root: Path, n: int, *, folders: bool) -> None:
    """Write n tiny files (a tenth of them test items), train.csv with groups, a sample."""
    n_test = n // 10
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", n - n_test), ("test", n_test)):
        if folders:
            names = [f"{part}/{i // 1000:04d}/{part}_{i:07d}.jpg" for i in range(count)]
            for folder in sorted({name.rpartition("/")[0] for name in names}):
                (root / folder).mkdir(parents=True)
            for i, name in enumerate(names):
                (root / name).write_bytes(b"%07d" % i)
        else:
            write_zip(root / f"{part}.zip", part, count)
    _write_tables(root, n - n_test, n_test)


def write_zip(path: Path, part: str, count: int) -> None:
    """Write `part/0000/part_0000000.jpg`, stored, 7 digits each, a microsecond a member."""
    name = f"{part}/0000/{part}_0000000.jpg".encode()
    n_name, blocks = len(name), range(0, count, 100_000)
    text = [("name", "u1", (n_name,))]
    local = np.dtype([*((k, "<u4") for k in ("sig", "a", "b")), ("time", "<u2"), ("crc", "<u4"),
                      ("packed", "<u4"), ("size", "<u4"), ("n", "<u2"), ("x", "<u2"), *text,
                      ("data", "u1", (7,))])  # fmt: skip
    entry = np.dtype([("sig", "<u4"), ("by", "<u2"), ("a", "<u4"), ("b", "<u4"), ("time", "<u2"),
                      ("crc", "<u4"), ("packed", "<u4"), ("size", "<u4"), ("n", "<u2"),
                      ("rest", "u1", (12,)), ("offset", "<u4"), *text])  # fmt: skip
    assert (local.itemsize, entry.itemsize) == (37 + n_name, 46 + n_name)
    with path.open("wb") as file:
        for record, signature in ((local, b"PK\3\4"), (entry, b"PK\1\2")):
            start = file.tell()
            for begin in blocks:
                numbers = np.arange(begin, min(begin + 100_000, count))
                rows = np.zeros(len(numbers), record)
                rows["sig"], rows["a"], rows["time"] = int.from_bytes(signature, "little"), 20, 33
                rows["size"] = rows["packed"] = 7
                rows["n"], rows["name"] = n_name, np.frombuffer(name, np.uint8)
                digits = (numbers[:, None] // 10 ** np.arange(6, -1, -1) % 10 + 48).astype(np.uint8)
                rows["name"][:, -11:-4] = digits
                rows["name"][:, len(part) + 1 : len(part) + 5] = digits[:, :4]
                rows["crc"] = _crc32(digits)
                if record is local:
                    rows["data"] = digits
                else:
                    rows["offset"] = numbers * local.itemsize
                file.write(rows.tobytes())
        size, end = file.tell() - start, file.tell()
        file.write(
            struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        )
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[2**16 - 1] * 2, size, start, 0))


def _crc32(letters: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of each row of letters, uint8 (n, k)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0xEDB88320), table >> 1)
    crc = np.full(len(letters), 2**32 - 1, np.uint32)
    for column in letters.T:
        crc = table[(crc ^ column) & 255] ^ (crc >> np.uint32(8))
    return ~crc


def _write_tables(root: Path, n_train: int, n_test: int) -> None:
    rng = np.random.default_rng(0)
    groups = max(10, (n_train + n_test) // 5)
    weight = rng.pareto(1.5, groups) + 0.2  # uneven: a few groups hold thousands
    group = rng.choice(groups, n_train, p=weight / weight.sum())
    label = (rng.random(n_train) < rng.beta(0.5, 0.5, groups)[group]).astype(int)
    rows = zip(label.tolist(), group.tolist(), strict=True)
    with (root / "train.csv").open("w") as file:
        file.write("filename,label,group\n")
        file.writelines(f"train_{i:07d}.jpg,{y},g{g}\n" for i, (y, g) in enumerate(rows))
    with (root / "sample_submission.csv").open("w") as file:
        file.write("filename,label\n")
        file.writelines(f"test_{i:07d}.jpg,0\n" for i in range(n_test))


def _timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def _peak_gib() -> float:
    # Not getrusage: a child's maximum starts at its parent's size.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20


def measure_data(home: str, name: str) -> dict[str, float]:
    """Manifest, folds made, folds read again, the table of a run."""
    resource.setrlimit(resource.RLIMIT_DATA, (STOP_GIB * 2**30,) * 2)
    os.environ["RVF_ROOT"] = str(Path(home) / "artefacts" / name)
    from src.data.folds.make import ensure_folds
    from src.data.layouts.load import load_dataset
    from src.training.job import job_table

    dataset, manifest, manifest_wall = _timed(lambda: load_dataset(name, Path(home) / "input"))
    made, folds, folds_wall = _timed(lambda: ensure_folds(dataset, SCHEME))
    peak = _peak_gib()
    again, read, _ = _timed(lambda: ensure_folds(dataset, SCHEME))
    _, table, _ = _timed(lambda: job_table(dataset.train, again[1]))
    return {
        "items": len(dataset.items), "groups": made[1]["group"].nunique(), "manifest": manifest,
        "folds": folds, "wall": manifest_wall + folds_wall, "gib": peak, "read": read + table,
    }  # fmt: skip


def measure_start(home: str, name: str) -> dict[str, float]:
    """A later start: to the rows of the first batch, and one file of them read."""
    began = time.perf_counter()
    os.environ["RVF_ROOT"] = str(Path(home) / "artefacts" / name)
    from src.data.folds.make import ensure_folds
    from src.data.items.files import read_bytes
    from src.data.layouts.load import load_dataset
    from src.training.job import Options
    from src.training.plan import plan_jobs
    from src.training.trainer import Trainer

    imports = time.process_time()
    dataset = load_dataset(name, Path(home) / "input")
    folds = ensure_folds(dataset, SCHEME)[1]
    options = Options(
        device="cpu", precision="fp32", workers=0, track="none", cache="none", no_pretrained=True
    )
    job = next(plan_jobs([MODEL], dataset, SCHEME, folds, [0], options))
    job.identity({"source": "random", "sha256": ""})
    trainer = Trainer(job)
    trainer.source.marks()
    trainer.source.preload(None, "none")
    trainer.compute, trainer.workers = options, 0
    trainer.run.enter_stage(0)
    trainer.batches = trainer.make_batches()
    first = next(iter(trainer.sampler))
    path = trainer.source.paths[next(iter(first))]
    assert path.endswith(f"{read_bytes(dataset.root, path).decode()}.jpg")
    status = Path("/proc/self/status").read_text().splitlines()
    kib = {key: int(line.split()[1]) for line in status if " kB" in line for key in [line[:7]]}
    return {
        "items": len(dataset.items), "imports": imports, "cpu": time.process_time(),
        "wall": time.perf_counter() - began, "own": kib["RssAnon"] / 2**20,
        "mapped": kib["RssFile"] / 2**20, "peak": kib["VmHWM:\t"[:7]] / 2**20,
    }  # fmt: skip


def measure_near(n: int) -> dict[str, float]:
    """Near-duplicates among random hashes, with n / 50 planted at 0 to 4 bits."""
    from src.data.folds.near_duplicates import near_pairs

    rng = np.random.default_rng(1)
    hashes, flips = rng.integers(0, 2**64, (2, n), dtype=np.uint64)
    planted = n // 50
    hashes[-planted:] = hashes[:planted]
    for _ in range(4):
        bit = np.uint64(1) << rng.integers(0, 64, planted, dtype=np.uint64)
        hashes[-planted:] ^= np.where(rng.random(planted) < 0.7, bit, np.uint64(0))
    pairs, cpu, wall = _timed(lambda: near_pairs(hashes, flips))
    peak = _peak_gib()
    found = set(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))
    want = {(i, n - planted + i) for i in range(planted)}
    if n <= 10_000:
        want |= _brute_force(hashes, flips)
    return {
        "items": n, "near": cpu, "wall": wall, "gib": peak, "pairs": len(found),
        "recall": len(found & want) / len(want),
    }  # fmt: skip


def _brute_force(hashes: np.ndarray, flips: np.ndarray) -> set[tuple[int, int]]:
    found = set()
    for i in range(len(hashes) - 1):
        rest = slice(i + 1, None)
        near = np.bitwise_count(hashes[i] ^ hashes[rest]) <= 4
        near |= np.bitwise_count(hashes[i] ^ flips[rest]) <= 4
        near |= np.bitwise_count(flips[i] ^ hashes[rest]) <= 4
        found |= {(i, i + 1 + int(j)) for j in np.flatnonzero(near)}
    return found


def measure_hashing(home: str, n: int) -> dict[str, float]:
    """Read, decode, hash: n JPEGs of 256 px, in one process."""
    import cv2

    from src.data.folds.scan import look_at

    cv2.setNumThreads(1)
    rng = np.random.default_rng(2)
    folder = Path(home) / f"pictures{n}"
    folder.mkdir(parents=True)
    for i in range(n):
        small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        big = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
        (folder / f"{i}.jpg").write_bytes(cv2.imencode(".jpg", big)[1].tobytes())
    look_at(folder, "0.jpg")
    looks, cpu, wall = _timed(lambda: [look_at(folder, f"{i}.jpg") for i in range(n)])
    return {"items": n, "hashing": cpu, "wall": wall, "errors": sum(bool(x.error) for x in looks)}


MEASURES = {
    "data": measure_data,
    "start": measure_start,
    "near": measure_near,
    "hashing": measure_hashing,
}


def in_process(what: str, *values: object) -> dict[str, float]:
    """Run one measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps([what, *values])]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=STOP_SECONDS
    )
    return json.loads(done.stdout.splitlines()[-1])


def exponent(rows: list[dict[str, float]], key: str) -> float:
    """Return b of time = a n^b between the two largest sizes."""
    (small, large) = rows[-2:]
    return float(np.log(large[key] / small[key]) / np.log(large["items"] / small["items"]))


def verdict(name: str, figure: str, target: str, *, ok: bool) -> None:
    """Print one line a target."""
    print(f"{'ok' if ok else 'short'} {name} {figure} (target {target})")


def run(home: Path, largest: int) -> None:
    """Measure everything, print the table and the targets."""
    from src.machine import cpu_count

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")
    print(f"device: {model}, {cpu_count()} cores usable, CPU seconds of one process")
    sizes = [n for n in (10_000, 100_000, ITEMS, MANY) if n <= largest]
    plan = [(n, False) for n in sizes] + [(min(100_000, largest), True)]
    head = "files", "items", "groups", "manifest s", "folds s", "sum s", "wall s", "peak GiB"
    print(("{:>8}" + "{:>12}" * 8).format(*head, "run start s"))
    rows, starts = [], []
    for n, folders in plan:
        name = f"{'folders' if folders else 'zip'}{n}"
        make_data(home / "input" / name, n, folders=folders)
        time.sleep(2.5)  # what has just changed is not kept
        try:
            row = in_process("data", str(home), name)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            limits = f"{STOP_SECONDS} s, {STOP_GIB} GiB"
            verdict(f"first manifest of {n} items", f"stopped ({error})", limits, ok=False)
            break
        row["sum"] = row["manifest"] + row["folds"]
        print(
            f"{name.rstrip('0123456789'):>8}{row['items']:>12}{row['groups']:>12}"
            f"{row['manifest']:>12.2f}{row['folds']:>12.2f}{row['sum']:>12.2f}{row['wall']:>12.2f}"
            f"{row['gib']:>12.2f}{row['manifest'] + row['read']:>12.2f}",
            flush=True,
        )
        rows += [] if folders else [row]
        starts += [] if folders else [in_process("start", str(home), name)]
    print(f"\n{'later start':>12}" + ("{:>12}" * 6).format(*_START))
    for row in starts:
        print(f"{row['items']:>12}" + "".join(f"{row[key]:>12.2f}" for key in _START))
    if largest > ITEMS:
        print()
        judge_many(rows, starts)
        return
    print(f"\n{'hashes':>8}{'CPU s':>12}{'wall s':>12}{'peak GiB':>12}{'pairs':>12}{'recall':>12}")
    near = [min((in_process("near", n) for _ in range(3)), key=itemgetter("near")) for n in sizes]
    for row in near:
        print(
            f"{row['items']:>8}{row['near']:>12.3f}{row['wall']:>12.3f}{row['gib']:>12.2f}"
            f"{row['pairs']:>12}{row['recall']:>12.4f}"
        )
    hashing = [in_process("hashing", str(home), n) for n in (300, 3000)]
    print(f"\n{'pictures':>8}{'CPU s':>12}{'a second':>12}")
    for row in hashing:
        print(f"{row['items']:>8}{row['hashing']:>12.2f}{row['items'] / row['hashing']:>12.0f}")
    print()
    judge(rows, near, hashing)


def judge_many(rows: list[dict[str, float]], starts: list[dict[str, float]]) -> None:
    """Print one line a target of ten million items."""
    (*_, before, last), start = rows, starts[-1]
    full, both = last["items"] == MANY, start["own"] + start["mapped"]
    verdict("first manifest and folds", f"{last['gib']:.2f} GiB", "1e7 items in < 12 GiB",
            ok=full and last["gib"] < MOST_MANY_GIB)  # fmt: skip
    found = exponent([before, last], "sum")
    ideal = [row | {"t": row["items"] * np.log(row["items"])} for row in (before, last)]
    most = exponent(ideal, "t")
    verdict("growth of manifest and folds", f"n^{found:.2f}", f"n log n = n^{most:.2f}",
            ok=full and found <= most + 0.1)  # fmt: skip
    verdict("later start", f"{start['cpu']:.1f} CPU-s", "1e7 items in <= 10 CPU-s",
            ok=full and start["cpu"] <= MOST_START_CPU)  # fmt: skip
    verdict("memory of a start, own and mapped", f"{both:.2f} GiB", "1e7 items in < 2 GiB",
            ok=full and both < MOST_START_GIB)  # fmt: skip
    verdict("the most that a start had", f"{start['peak']:.2f} GiB", "1e7 items in < 2 GiB",
            ok=full and start["peak"] < MOST_START_GIB)  # fmt: skip


def judge(
    rows: list[dict[str, float]], near: list[dict[str, float]], hashing: list[dict[str, float]]
) -> None:
    """Print one line a target."""
    last = rows[-1]
    full = last["items"] >= ITEMS
    seconds, within = (
        f"{last['sum']:.1f} CPU-s, {last['wall']:.1f} s wall",
        last["sum"] < MOST_SECONDS,
    )
    verdict("manifest and folds", seconds, "1e6 items in < 180 CPU-s", ok=within and full)
    verdict(
        "peak memory", f"{last['gib']:.2f} GiB", "<= 3 GiB", ok=last["gib"] <= MOST_GIB and full
    )
    for name, part, key in (
        ("growth of manifest and folds", rows, "sum"),
        ("growth of near-duplicate search", near, "near"),
        ("growth of hashing", hashing, "hashing"),
    ):
        ideal = [row | {"t": row["items"] * np.log(row["items"])} for row in part]
        found, most = exponent(part, key), exponent(ideal, "t")
        # A tenth for noise: at these sizes caches alone cost more than the logarithm.
        verdict(name, f"n^{found:.2f}", f"n log n = n^{most:.2f}", ok=found <= most + 0.1)
    recall = min(row["recall"] for row in near)
    target = "100 % of planted pairs; of all pairs by brute force at 1e4"
    verdict("recall of near-duplicates", f"{100 * recall:.2f} %", target, ok=recall == 1)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the files go")
    parser.add_argument("--largest", type=int, default=ITEMS, choices=[100_000, ITEMS, MANY])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, *values = json.loads(arguments.measure)
        print(json.dumps(MEASURES[what](*values), default=float))
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="rvf-scale-") as home:
        run(Path(home), arguments.largest)


if __name__ == "__main__":
    main()
