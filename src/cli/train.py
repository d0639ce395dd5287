"""`train_folds.py`: train one model on one fold, or on all folds that are not finished."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.cli.common import (
    Parser,
    add_compute_arguments,
    add_data_arguments,
    choose_dataset,
    run_command,
    show_log,
)
from src.errors import LockedError, UserError

DESCRIPTION = """Train a model with stratified group K-fold.

  python train_folds.py --model effnet_b0 --fold 0     one fold
  python train_folds.py --model effnet_b0              all folds; finished ones are skipped
  python train_folds.py --model timm:resnet18          any timm backbone, default settings

Killed or interrupted, the same command goes on after the last finished epoch."""


def make_parser() -> Parser:
    """Return the parser of `train_folds.py`."""
    parser = Parser(DESCRIPTION, prog="train_folds.py")
    parser.add_argument("--model", required=True, metavar="NAME", help="a config, or timm:NAME")
    parser.add_argument("--fold", type=int, metavar="K", help="held-out fold; default: all")
    add_data_arguments(parser)
    add_compute_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="start finished folds again")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights to start from")
    parser.add_argument("--no-pretrained", action="store_true", help="start from random weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="change the config (optim.lr=1e-4); only with --as",
    )  # fmt: skip
    parser.add_argument("--as", metavar="NEW_NAME", dest="new_name", help="name of the variant")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    from src import config

    model, changes = _variant(arguments.model, arguments.changes, arguments.new_name)
    config.read_model(arguments.model, changes)  # a typo answers before anything heavy is loaded
    dataset_name = choose_dataset(arguments.data, arguments.input_root)
    if model != arguments.model:
        from src.artifacts.variants import write_variant

        write_variant(model, arguments.model, changes)
    show_log()
    _train(model, dataset_name, arguments)


def _variant(model: str, changes: list[str], new_name: str | None) -> tuple[str, dict[str, Any]]:
    if bool(changes) != bool(new_name):
        raise UserError(
            "--set and --as go together: a changed model needs its own name, or its artefacts' "
            "names would lie; for example --set optim.lr=1e-4 --as "
            + model.replace(":", "_")
            + "_lr1e-4"
        )
    from src.config import parse_change

    return (new_name or model), dict(parse_change(change) for change in changes)


def _train(model: str, dataset_name: str, arguments: Any) -> None:  # noqa: ANN401
    from src import paths
    from src.artifacts.files import file_lock
    from src.artifacts.folds import fold_numbers
    from src.cli.folds import print_report
    from src.config import read_model
    from src.data.folds import ensure_folds
    from src.data.layouts import load_dataset
    from src.training.job import Job, Options, check_fold, job_table

    config = read_model(model)
    dataset = load_dataset(dataset_name, arguments.input_root)
    with file_lock(paths.folds_lock(dataset.name), "the folds", wait=True):
        scheme, folds, report = ensure_folds(dataset, arguments.scheme)
    if report is not None:
        print_report(report)
    if arguments.fold is not None:
        check_fold(folds, arguments.fold)
    from src.training.trainer import fit_fold  # torch, timm: seconds a mistake need not wait for

    options = Options(
        arguments.device,
        arguments.precision,
        arguments.workers,
        arguments.overwrite,
        arguments.weights,
        arguments.no_pretrained,
    )
    numbers = fold_numbers(folds) if arguments.fold is None else [arguments.fold]
    busy: list[LockedError] = []
    for fold in numbers:
        job = Job(
            model,
            config,
            dataset.name,
            scheme,
            fold,
            dataset.root,
            job_table(dataset.train, folds),
            options,
        )
        try:
            if not fit_fold(job):
                print(
                    f"{model} fold {fold}: finished already, skipped (--overwrite trains it again)"
                )
        except LockedError as error:
            busy.append(error)
            print(f"{error}")
    if busy and len(busy) == len(numbers):
        raise busy[0]
    print(f"next: python tune.py --data {dataset.name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train_folds.py`; returns the exit code."""
    return run_command(_run, argv)
