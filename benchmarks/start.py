"""What the start of a rank costs: from a kept manifest and a fold file to its first batch.

  python benchmarks/start.py                       1e5, 1e6, 1e7 items
  python benchmarks/start.py --largest 1000000     the same, smaller
  python benchmarks/start.py --scratch DIR         where it all goes (4 GB), else $TMPDIR

The data set is columns of Arrow, mapped from a file as a kept manifest is, beside a zip whose
directory was read before: all that a run does until it knows the rows of its first batch and has
read a file of it out of the zip, and what its loader processes hold. Each row runs in a process of
its own, imports included. Anonymous memory is the process' own; mapped pages (columns and
libraries) are shared by all ranks of a machine. How the manifest and the folds are made:
benchmarks/scale.py."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import numpy as np  # noqa: E402

MOST_CPU, MOST_GIB, MOST_WORKER_GIB = 10.0, 2.0, 0.2
MODEL, WORKERS, BATCHES = "compact32", 4, 40


def make_columns(home: Path, n: int) -> None:
    """Write columns of n items, a tenth of them test items, of their fold file, and a zip."""
    import pyarrow as pa
    from scale import write_zip

    from src.data.items.files import open_archive

    os.environ["RVF_ROOT"] = str(home / f"root{n}")
    (home / f"set{n}").mkdir()
    write_zip(home / f"set{n}" / "train.zip", "train", n - n // 10)
    time.sleep(2.5)  # what has just changed is not kept
    open_archive(str(home / f"set{n}" / "train.zip"))

    n_test, words = n // 10, pa.large_string()
    n_train, rng = n - n_test, np.random.default_rng(0)
    parts = [("train", k) for k in range(n_train)] + [("test", k) for k in range(n_test)]
    names = [f"{part}_{k:07d}.jpg" for part, k in parts]
    files = [f"{part}.zip!/{part}/{k // 1000:04d}/{part}_{k:07d}.jpg" for part, k in parts]
    group = rng.integers(0, max(10, n // 5), n_train)
    label = (rng.random(n_train) < 0.4).astype(np.int64)
    groups = [f"g{k}" for k in group.tolist()]
    splits = ["train"] * n_train + ["test"] * n_test
    items = {
        "item_id": pa.array(names, words), "path": pa.array(files, words),
        "kind": pa.array(["image"] * n, words), "split": pa.array(splits, words),
        "label": pa.array(np.append(label, np.full(n_test, -1)).astype(np.int8)),
        "group": pa.array(groups + [""] * n_test, words), "domain": pa.array([""] * n, words),
        "bytes": pa.array(rng.integers(1_000, 100_000, n)),
        "stamp": pa.array(rng.integers(0, 2**62, n)),
    }  # fmt: skip
    folds = {name: items[name][:n_train] for name in ("item_id", "group", "domain", "kind")}
    folds |= {"label": pa.array(label), "fold": pa.array(group % 5)}
    for name, columns in (("items", items), ("folds", folds)):
        table = pa.table(columns)
        file = str(home / f"{name}{n}.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


def _mapped(path: Path) -> Any:  # noqa: ANN401 - a table of pandas, which is not loaded yet
    import pandas as pd
    import pyarrow as pa

    from src.mapped import map_file

    table = pa.ipc.open_file(map_file(path)).read_all()
    strings: Any = pd.StringDtype("pyarrow", na_value=np.nan)
    columns: dict[str, Any] = {}
    for field in table.schema:
        column = table[field.name]
        is_text = field.type == pa.large_string()
        columns[field.name] = (
            strings.__from_arrow__(column) if is_text else column.chunk(0).to_numpy()
        )
    return pd.DataFrame(columns, copy=False)


def memory(pid: int | str = "self") -> dict[str, float]:
    """Return what a process holds now, in GiB: of its own, mapped, and copied since its fork."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: value.split()[0] for key, _, value in (line.partition(":") for line in lines)
             if value.strip().endswith("kB")}  # fmt: skip
    rolled = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = next(int(line.split()[1]) for line in rolled if line.startswith("Private_Dirty"))
    return {
        "own": int(found["RssAnon"]) / 2**20,
        "mapped": (int(found["RssFile"]) + int(found["RssShmem"])) / 2**20,
        "peak": int(found["VmHWM"]) / 2**20,
        "private": private / 2**20,
    }


def measure(home: str, n: int) -> dict[str, float]:
    """Start a run of n items; returns CPU seconds so far and memory, step by step."""
    began = time.perf_counter()
    os.environ["RVF_ROOT"] = str(Path(home) / f"root{n}")
    from src import paths
    from src.data.items.files import read_bytes
    from src.data.items.manifest import Dataset
    from src.training.job import Options
    from src.training.plan import plan_jobs
    from src.training.trainer import Trainer

    imports = time.process_time()
    items, folds = _mapped(Path(home) / f"items{n}.arrow"), _mapped(Path(home) / f"folds{n}.arrow")
    file = paths.folds_csv("many", "s")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("stands for its bytes")
    stamps = items.pop("stamp").to_numpy()
    dataset = Dataset("many", Path(home) / f"set{n}", items, stamps, sha256="many")
    options = Options(
        device="cpu", precision="fp32", workers=WORKERS, track="none", cache="none",
        no_pretrained=True,
    )  # fmt: skip
    job = next(plan_jobs([MODEL], dataset, "s", folds, [0], options))
    job.identity({"source": "random", "sha256": ""})
    trainer = Trainer(job)
    trainer.source.marks()  # what a pixel cache on disk is looked for by
    trainer.source.preload(None, "none")
    trainer.compute, trainer.workers = options, WORKERS
    trainer.run.enter_stage(0)
    with warnings.catch_warnings(action="ignore"):  # of more processes than cores
        trainer.batches = trainer.make_batches()
    path = trainer.source.paths[next(iter(next(iter(trainer.sampler))))]
    assert path.endswith(f"{read_bytes(dataset.root, path).decode()}.jpg")
    row = {"items": n, "imports": imports, "cpu": time.process_time()}
    row |= {"wall": time.perf_counter() - began} | memory()
    row["loader"] = _loader_memory(trainer)
    return row


def _loader_memory(trainer: Any) -> float:  # noqa: ANN401 - a `Trainer`
    """Return the most that one loader process copied or made for itself, in GiB."""
    side = trainer.source.canvases[0].size

    def stack(rows: Any, *_: object) -> np.ndarray:  # noqa: ANN401 - as `PixelSource.stack`
        for row in rows:
            trainer.source.paths[row]
        return np.zeros((len(rows), side, side, 3), np.uint8)

    trainer.source.stack = stack
    batches = iter(trainer.batches)
    for _ in range(BATCHES):
        next(batches)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    held = [memory(pid)["private"] for pid in children]
    for pid in children:  # they wait for batches to be taken, and hear no SIGTERM
        os.kill(int(pid), signal.SIGKILL)
    return max(held, default=0.0)


def run(home: Path, largest: int) -> None:
    """Measure all sizes, print the table and the targets."""
    from scale import exponent, verdict  # here: a measured process imports what a run does

    head = ("items", "imports s", "rest s", "CPU s", "wall s", "own GiB", "mapped GiB", "peak GiB",
            "a loader GiB")  # fmt: skip
    print(("{:>10}" + "{:>14}" * 8).format(*head))
    rows = []
    for n in [size for size in (100_000, 1_000_000, 10_000_000) if size <= largest]:
        child(home, "make", n)
        row = json.loads(child(home, "measure", n))
        row["rest"] = row["cpu"] - row["imports"]
        keys = ("imports", "rest", "cpu", "wall", "own", "mapped", "peak", "loader")
        print(f"{n:>10}" + "".join(f"{row[key]:>14.2f}" for key in keys), flush=True)
        rows.append(row)
    last = rows[-1]
    full = last["items"] == 10_000_000
    verdict("start of a rank", f"{last['cpu']:.1f} CPU-s", "1e7 items in <= 10 CPU-s",
            ok=full and last["cpu"] <= MOST_CPU)  # fmt: skip
    verdict("memory of its own", f"{last['own']:.2f} GiB", "< 2 GiB at 1e7 items",
            ok=full and last["own"] < MOST_GIB)  # fmt: skip
    both = last["own"] + last["mapped"]
    verdict("with what is mapped", f"{both:.2f} GiB", "< 2 GiB at 1e7 items",
            ok=full and both < MOST_GIB)  # fmt: skip
    verdict("copied by a loader process", f"{last['loader']:.2f} GiB", "< 0.2 GiB at 1e7 items",
            ok=full and last["loader"] < MOST_WORKER_GIB)  # fmt: skip
    grown = exponent(rows, "rest")
    verdict("growth of what is not imports", f"n^{grown:.2f}", "n log n, n^1.06",
            ok=full and grown <= 1.16)  # fmt: skip


def child(home: Path, what: str, n: int) -> str:
    """Do one thing in a process of its own; returns its last line."""
    command = [sys.executable, __file__, "--do", json.dumps([what, str(home), n])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return (done.stdout.splitlines() or [""])[-1]


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the columns go")
    sizes = [1_000_000, 10_000_000]
    parser.add_argument("--largest", type=int, default=sizes[-1], choices=sizes)
    parser.add_argument("--do", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        what, home, n = json.loads(arguments.do)
        if what == "make":
            make_columns(Path(home), n)
        else:
            print(json.dumps(measure(home, n)), flush=True)
            os._exit(0)  # whose loader processes are gone
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="rvf-start-") as home:
        run(Path(home), arguments.largest)


if __name__ == "__main__":
    main()
