"""The flags of the commands that go beyond one machine and one disk."""

import argparse
import re

from src.cli.flags import Parser, add_data, add_training, command

_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


def _read_size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]b)", text.strip().lower())
    size = float(found[1]) * _UNITS[found[2]] if found else 0
    if size < 1e3:
        raise argparse.ArgumentTypeError(f"want a size such as 1GB or 300MB, found {text[:40]!r}")
    return int(size)


@command("""Pack a data set into tar shards with an index, read in place from anywhere.

  python -m src shards --data D --to /mnt/big/D                 shards of about 1 GB
  python -m src shards --data D --to s3://bucket/D              or any place that fsspec opens
  python -m src shards --check /mnt/big/D                       are all of them what was written?

Then `shards: /mnt/big/D` in input/D/dataset.yaml, or the folder moved into input/, is the data
set: all commands work on it, and `sampler: shards` of a model reads it nearly from start to end.
Stopped, the same command goes on after the last whole shard. See docs/shards.md.""")
def _shards(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser, scheme=False)
    add("--to", metavar="PLACE", help="folder, or s3://..., gs://..., that the shards come to")
    text = "about how large a shard is (default 1GB)"
    add("--size", type=_read_size, default=10**9, metavar="SIZE", help=text)
    text = "read all shards of a place, and hold them against their SHA-256"
    add("--check", metavar="PLACE", help=text)


def _add_what(parser: Parser) -> None:
    """Add what is to be done."""
    add = parser.add_argument
    add("--models", nargs="+", default=[], metavar="NAME", help="configs, or timm:NAME")
    text = (
        "numbers; all (the default): each fold of the scheme; refit: one model on every row, after "
        "its folds (train_folds.py --fold all)"
    )
    add("--folds", nargs="+", default=["all"], metavar="K", help=text)
    text = "N members of each model that differ in their seed: NAME, NAME_s<seed+1>, ..."
    add("--seeds", type=int, default=1, metavar="N", help=text)
    text = "another command, beside the training: tune.py, predict_ensemble.py, merge ..."
    add("--run", action="append", default=[], metavar="COMMAND", help=text)
    text = "one after all that, and after each --then before it; may be repeated, as --run may"
    add("--then", action="append", default=[], metavar="COMMAND", help=text)
    text = "processes of each tune.py with --study: they share its trials"
    add("--times", type=int, default=1, metavar="N", help=text)


def _add_where(parser: Parser) -> None:
    """Add on which engine, and what each job gets there."""
    add = parser.add_argument
    add("--on", default="local", metavar="ENGINE", help="local (the default), slurm, ray")
    text = "at once; local: as many as there are cards, or a job for four cores"
    add("--jobs", type=int, metavar="N", help=text)
    text = (
        "GPUs of each job (default: one on a machine that has some, else none); several share its "
        "fold: --ddp N"
    )
    add("--gpus-per-job", type=int, metavar="N", help=text)
    text = "cores of each job (local: equal shares; slurm, ray: 4, or 4 a GPU)"
    add("--cpus-per-job", type=int, metavar="N", help=text)
    text = "a flag of sbatch, such as partition=gpu, account=A, qos=Q, time=8:00:00, mem=32G"
    add("--slurm", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "of the Ray cluster, HOST:PORT (default: the one that runs here)"
    add("--ray-address", default="auto", metavar="ADDRESS", help=text)
    text = "say what would be done, how that stands, and what it costs by records; begin nothing"
    add("--dry-run", action="store_true", help=text)
    text = "slurm: leave once the jobs are in the queue; the same command says how they stand"
    add("--detach", action="store_true", help=text)


@command("""Do many jobs at once, on this machine, on SLURM or on Ray: each is one of our commands.

  python -m src launch --models a b --dry-run                     a table, and the hours it takes
  python -m src launch --models a b --seeds 3 --jobs 4            each on each fold, four at once
  python -m src launch --models a b --gpus-per-job 1              as many at once as there are cards
  python -m src launch --models a --on slurm --gpus-per-job 1 --slurm partition=gpu
  python -m src launch --models a --on ray --gpus-per-job 1
  python -m src launch --models a b --then tune.py --then predict_ensemble.py
  python -m src launch --run "tune.py --study s.journal --trials 1000" --times 4

Flags of train_folds.py are those of every job. What is done is told by artefacts: the same command
skips it, waits for what still runs, and does the rest. Ctrl-C lets jobs save; one that fails stops
no other. What each engine needs: docs/launch.md.""")
def _launch(parser: Parser) -> None:
    _add_what(parser)
    _add_where(parser)
    add_training(parser)
