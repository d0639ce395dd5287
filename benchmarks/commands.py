"""The commands of the repo in forks of a process that has torch loaded, for attacks on them."""

import faulthandler
import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
SCRIPTS = {"train_folds.py": "train", "tune.py": "tune", "predict_ensemble.py": "predict"}
Before = Callable[[], object]


def preload(verbs: Sequence[str] = ()) -> dict[str, Callable[[list[str]], int]]:
    """Import all that commands need, and make pixel caches of many small chunks.

    Args:
        verbs: of `python -m src`, beside the three commands.

    Returns:
        First word of a command to its main function.
    """
    import pyarrow.parquet  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import src.training.trainer  # noqa: F401
    from src.cli import parsers
    from src.data.pixels import cache, cache_build
    from src.ensemble import tune as _  # noqa: F401

    cache.CHUNK_BYTES = cache_build.CHUNK_BYTES = 2 * 3 * 64 * 64
    if verbs:
        _preload_more()
    gc.collect()
    gc.freeze()  # else every fork copies what its first collection touches
    modules = SCRIPTS | {verb: verb.replace("-", "_") for verb in verbs}
    return {word: partial(parsers.main, module) for word, module in modules.items()}


def _preload_more() -> None:
    """Import what the verbs take from elsewhere; figures and intervals cost less, and say less."""
    import pkgutil

    import imagehash  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import networkx  # noqa: F401
    import onnx.reference  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import torch.export
    import torch.onnx._internal.exporter._core  # noqa: F401
    from matplotlib.figure import Figure

    import src

    for module in pkgutil.walk_packages(src.__path__, "src."):
        if module.name != "src.__main__":
            importlib.import_module(module.name)
    from src.reporting import scorecard
    from src.reporting.report import worst

    scorecard.MOST_REPLICATES = 20
    worst.worst_rows.__defaults__ = (2,)  # items of each class
    for name, module in list(sys.modules.items()):
        if name.startswith("src.reporting") and hasattr(module, "new_figure"):
            module.new_figure = lambda width, height: Figure(figsize=(width / 4, height / 4))


class Command:
    """A command at work: a fork, or a process of its own.

    Args:
        words: as they are typed; a verb of `python -m src` begins with itself.
        root: `RVF_ROOT`.
        mains: what `preload` returned.
        own: a process of its own in place of a fork.
        log: where both streams go; default: `log.txt` in the root.
        before: called in the fork when its streams stand, before the command.
    """

    def __init__(
        self, words: list[str], root: Path, mains: dict, *, own: bool = False,
        log: Path | None = None, before: Before | None = None,
    ) -> None:  # fmt: skip
        log = log or root / "log.txt"
        if own:
            with log.open("a") as out:
                self._process = subprocess.Popen(
                    [sys.executable, str(REPO / words[0]), *words[1:]],
                    env={**os.environ, "RVF_ROOT": str(root)}, stdout=out, stderr=out,
                )  # fmt: skip
        else:
            context = multiprocessing.get_context("fork")
            self._process = context.Process(target=_child, args=(words, root, log, mains, before))
            self._process.start()
        self.pid = self._process.pid

    def running(self) -> bool:
        """Tell whether it has not ended yet."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll() is None
        return self._process.is_alive()

    def wait(self, seconds: float = 120.0) -> int:
        """Return the exit code; a command that hangs is killed and counts as -99."""
        end = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                return -99
            time.sleep(0.01)
        if isinstance(self._process, subprocess.Popen):
            return self._process.returncode
        self._process.join()
        return int(self._process.exitcode)


def _child(words: list[str], root: Path, log: Path, mains: dict, before: Before | None) -> None:
    os.environ["RVF_ROOT"] = str(root)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    faulthandler.dump_traceback_later(60, exit=True)  # a hang shows where
    if before is not None:
        before()
    sys.exit(mains[words[0]](words[1:]))
