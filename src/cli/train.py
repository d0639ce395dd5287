"""`train_folds.py`: train one model on one fold, or on all folds that are not finished."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.cli.common import (
    Parser,
    add_compute_arguments,
    add_data_arguments,
    add_time_argument,
    choose_dataset,
    run_command,
    show_log,
)
from src.compute.clock import Clock
from src.errors import LockedError, UserError
from src.training.trackers import DEFAULT, TRACKERS, check_tracker

DESCRIPTION = """Train a model with stratified group K-fold.

  python train_folds.py --model effnet_b0 --fold 0     one fold
  python train_folds.py --model effnet_b0              all folds; finished ones are skipped
  python train_folds.py --model timm:resnet18          any timm backbone, default settings
  python train_folds.py --model effnet_b0 --seeds 3    three members: seeds 42, 43 and 44
  python train_folds.py --model effnet_b0 --fold all   one model on every row, nothing held out,
                                                       for predict_ensemble.py --refit

Interrupted (Ctrl-C, SIGTERM) or out of time (--max-hours), the same command goes on from the batch
where it stopped; killed, after the last state that was saved."""


def make_parser() -> Parser:
    """Return the parser of `train_folds.py`."""
    parser = Parser(DESCRIPTION, prog="train_folds.py")
    parser.add_argument("--model", required=True, metavar="NAME", help="a config, or timm:NAME")
    add_training_arguments(parser)
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N",
        help="train N members that differ in their seed: NAME, NAME_s<seed+1>, ...",
    )  # fmt: skip
    return parser


def add_training_arguments(parser: Parser) -> None:
    """Add what says on which fold, where, how fast and from which weights a model is trained."""
    parser.add_argument(
        "--fold", type=fold_argument, metavar="K",
        help="held-out fold (default: each in turn); `all` trains on every row",
    )  # fmt: skip
    add_data_arguments(parser)
    add_compute_arguments(parser)
    add_time_argument(parser, "stop before this is over; the same command goes on from there")
    parser.add_argument(
        "--cache", default="auto", choices=["auto", "disk", "ram", "none"],
        help="where decoded pixels are kept; default: on disk if there is room, else in memory",
    )  # fmt: skip
    parser.add_argument(
        "--track", default=DEFAULT, metavar="NAME",
        help=f"where each epoch's scores go too: {', '.join(TRACKERS)} (default: {DEFAULT})",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="start finished folds again")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights to start from")
    parser.add_argument("--no-pretrained", action="store_true", help="start from random weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="change the config (optim.lr=1e-4); only with --as",
    )  # fmt: skip
    parser.add_argument("--as", metavar="NEW_NAME", dest="new_name", help="name of the variant")


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    check_tracker(arguments.track)
    from src import config

    model, changes = _variant(arguments.model, arguments.changes, arguments.new_name)
    config.read_model(arguments.model, changes)  # a typo answers before anything heavy is loaded
    dataset_name = choose_dataset(arguments.data, arguments.input_root)
    from src.artifacts.variants import taken_back_if_refused, write_variant

    show_log()
    clock = Clock(arguments.max_hours)
    with clock.running(), taken_back_if_refused():
        if model != arguments.model:
            write_variant(model, arguments.model, changes)
        models = _with_seeds(model, arguments.seeds)
        train_models(models, dataset_name, arguments, clock)


def fold_argument(text: str) -> int | str:
    """Read `--fold`: a number, or `all`."""
    from src.paths import ALL

    if text != ALL and not text.isdecimal():
        raise ArgumentTypeError(f"want a fold number, or {ALL}, found {text!r}")
    return ALL if text == ALL else int(text)


def _with_seeds(model: str, seeds: int) -> list[str]:
    """Return the model and its variants with other seeds, whose configs are written."""
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: want 1 or more members")
    from src.artifacts.variants import write_variant
    from src.config import read_model

    models, first = [model], read_model(model).seed
    for seed in range(first + 1, first + seeds):
        name = f"{model.replace(':', '_')}_s{seed}"
        write_variant(name, model, {"seed": seed})
        models.append(name)
    return models


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


def train_models(models: list[str], dataset_name: str, arguments: Any, clock: Clock) -> None:  # noqa: ANN401
    """Train models on the folds that the parsed arguments ask for; finished ones are skipped."""
    from src import paths
    from src.artifacts.atomic import file_lock
    from src.artifacts.folds import fold_numbers
    from src.cli.folds import print_report
    from src.data.folds.make import ensure_folds
    from src.data.folds.schemes import held_out_domains, is_lodo
    from src.data.layouts.load import load_dataset
    from src.training.job import Options, check_fold
    from src.training.plan import plan_jobs

    dataset = load_dataset(dataset_name, arguments.input_root)
    with file_lock(paths.folds_lock(dataset.name), "the folds", wait=True):
        scheme, folds, report = ensure_folds(dataset, arguments.scheme)
    if report is not None:
        print_report(report)
    else:
        print(f"labels: {dataset.labels.polarity}")
    if report is None and is_lodo(scheme):
        domains = ", ".join(f"{k} {name}" for k, name in enumerate(held_out_domains(folds)))
        print(f"{scheme}: folds hold out {domains}")
    if arguments.fold is not None:
        check_fold(folds, arguments.fold)
    options = Options.of(arguments, clock=clock)
    numbers = fold_numbers(folds) if arguments.fold is None else [arguments.fold]
    jobs = plan_jobs(models, dataset, scheme, folds, numbers, options)
    from src.training.trainer import fit_fold  # torch, timm: seconds a mistake need not wait for

    busy: list[LockedError] = []
    for job in jobs:
        try:
            if not fit_fold(job):
                print(
                    f"{job.model} fold {job.fold}: finished already, skipped (--overwrite trains "
                    "it again)"
                )
        except LockedError as error:
            busy.append(error)
            print(f"{error}")
    if busy and len(busy) == len(numbers) * len(models):
        raise busy[0]
    after = "predict_ensemble.py --refit" if arguments.fold == paths.ALL else "tune.py"
    look = f"python -m src report {' '.join(models)} --data {dataset.name}"
    print(f"look: {look}   (learning curves, confusion, the most wrong items)")
    print(f"next: python {after} --data {dataset.name}")


def run(argv: Sequence[str]) -> None:
    """Do what `train_folds.py` does; raises in place of an exit code (see `run_command`)."""
    _run(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train_folds.py`; returns the exit code."""
    return run_command(_run, argv)
