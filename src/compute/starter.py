"""`--ddp`: starts torchrun with the same command, and ends as its ranks did."""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from src import paths
from src.compute import ranks
from src.errors import UserError
from src.machine import cpu_count

ALL = -1  # `--ddp` without a number
LEAVING_SECONDS = 120  # that ranks have to save after a signal
SCRIPT = "train_folds.py"


def count_ranks(wanted: int, device: str) -> int:
    """Return how many ranks `--ddp` starts.

    Raises:
        UserError: none, or more than there are cards.
    """
    import torch

    cards = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if device not in ("auto", "cuda", "cpu"):
        raise UserError(
            f"--ddp gives each rank a card of its own, and --device {device} is one: leave "
            "--device out; CUDA_VISIBLE_DEVICES=2,3 says which cards"
        )
    if wanted == ALL:
        if not cards:
            raise UserError(
                "--ddp takes all cards, and there is none here: --ddp N --device cpu starts N "
                "processes on the CPU, which is seldom faster than one"
            )
        return cards
    if cards and wanted > cards:
        raise UserError(f"--ddp {wanted}: there are {cards} cards here, one a rank; take --ddp")
    return wanted


def start(count: int, words: Sequence[str]) -> NoReturn:
    """Run a training with the same flags as so many ranks on this machine, and end as they end."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What ranks say is heard; what torchrun says of them is that, once more. Its loggers have
    # levels of their own, which those above do not bind.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // count)))
    with tempfile.TemporaryDirectory(prefix="rvf_ranks_") as folder:
        said = Path(folder) / "said.json"
        os.environ[ranks.SAID] = str(said)
        config = LaunchConfig(
            1, 1, count, run_id="rvf", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            max_restarts=0, logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=LEAVING_SECONDS,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)(str(paths.REPO / SCRIPT), *words)
        except SignalException:
            raise SystemExit(_said(said).get("code", 130)) from None
        except ChildFailedError as error:
            last = _said(said)
            if last and last["lost"] is None:
                raise SystemExit(last["code"]) from None
            killed = {k: one.exitcode for k, one in error.failures.items() if one.exitcode < 0}
            rank = next(iter(killed), error.get_first_failure()[0])
            how = signal.Signals(-killed[rank]).name if rank in killed else "an error"
            why = " (memory that ran out?)" if how == "SIGKILL" else ""
            why = why or (f" ({last['lost']})" if last and not killed else "")
            raise UserError(
                f"rank {rank} of {count} was ended by {how}{why}; the same command, with "
                "as many ranks or with others, goes on from what was saved"
            ) from None
    raise SystemExit(0)


def _said(path: Path) -> dict[str, Any]:
    """Return what the first rank to end has left: its exit `code`, and how another was `lost`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
