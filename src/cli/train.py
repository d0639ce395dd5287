"""`train_folds.py`: train one model on one fold, or on all folds that are not finished."""

from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.folds import fold_numbers
from src.artifacts.label_names import LabelNames
from src.artifacts.runs import read_run
from src.artifacts.variants import seed_members, taken_back_if_refused, write_variant
from src.cli import parsers
from src.cli.common import choose_dataset, named_scheme, show_log, taken
from src.cli.folds import folds_of
from src.compute import ranks, starter
from src.compute.budget import Budget
from src.compute.clock import Clock
from src.config import parse_change, read_model
from src.data.folds.schemes import held_out_domains, is_lodo
from src.data.layouts.load import load_dataset
from src.errors import LockedError, UserError, message_of
from src.training.job import Job, Options, check_fold
from src.training.plan import plan_jobs
from src.training.together import check_shared
from src.training.trackers import check_tracker


def run_train(arguments: Namespace) -> None:
    """Do what `train_folds.py` was asked for."""
    if arguments.ddp is not None and ranks.asked() == 1:
        count = starter.count_ranks(arguments.ddp, arguments.device)
        if count > 1:
            starter.start(count, arguments.words)
    model, changes, new_name = arguments.model, arguments.changes, arguments.new_name
    check_change(model, changes, new_name)
    train(
        model,
        arguments.data,
        taken(Options, arguments, clock=Clock(arguments.max_hours)),
        changes=dict(parse_change(change) for change in changes),
        new_name=new_name,
        seeds=arguments.seeds,
        scheme=arguments.scheme,
        fold=arguments.fold,
        input_root=arguments.input_root,
        minutes=arguments.minutes,
    )


def train(
    model: str,
    dataset: str | None,
    options: Options,
    *,
    changes: dict[str, Any],
    new_name: str | None = None,
    seeds: int = 1,
    scheme: str | None = None,
    fold: paths.FoldName | None = None,
    input_root: Path | None = None,
    minutes: float | None = None,
) -> None:
    """Train a model, or a variant of it, on the folds that are asked for and not finished.

    Without names, the only data set and its only (or default) fold scheme are taken, and each fold
    in turn; `changes` (dotted keys of the config) are written as a variant of a `new_name`; `seeds`
    members differ in their seed. In `minutes` all of them are finished, where they are given.
    """
    check_time(minutes, options)
    check_tracker(options.track)
    read_model(model, changes)  # a typo answers before a data set is read
    name = choose_dataset(dataset, input_root)
    show_log()
    with options.clock.running(), taken_back_if_refused():
        check_shared(paths.root())
        with ranks.leader_first():
            if new_name is not None:
                write_variant(new_name, model, changes)
            models = with_seeds(new_name or model, seeds)
        train_models(
            models, name, options,
            scheme=scheme, fold=fold, input_root=input_root, minutes=minutes,
        )  # fmt: skip


def check_change(model: str, changes: Sequence[str], new_name: str | None) -> None:
    """Raise a UserError where a model is changed and gets no name of its own, or the reverse."""
    if bool(changes) != bool(new_name):
        raise UserError(
            "--set and --as go together: a changed model needs its own name, or its artefacts' "
            "names would lie; for example --set optim.lr=1e-4 --as "
            + model.replace(":", "_")
            + "_lr1e-4"
        )


def check_time(minutes: float | None, options: Options) -> None:
    """Raise a UserError where two limits of time were given."""
    if minutes is not None and options.clock.max_hours is not None:
        raise UserError(
            "--minutes and --max-hours: give one. --minutes fits the training into the time and "
            "finishes it, --max-hours stops what takes longer, and the same command goes on"
        )


def with_seeds(model: str, seeds: int) -> list[str]:
    """Return the model and its variants with other seeds, whose configs are written."""
    members = seed_members(model, read_model(model).seed, seeds)
    for name, seed in members.items():
        write_variant(name, model, {"seed": seed})
    return [model, *members]


def train_models(
    models: Sequence[str],
    name: str,
    options: Options,
    *,
    scheme: str | None,
    fold: paths.FoldName | None,
    input_root: Path | None,
    minutes: float | None = None,
) -> None:
    """Train models on a data set, model by model; folds that are finished are skipped.

    With `minutes` those that are not share what is left of them (`Budget`).
    """
    with ranks.leader_first():
        dataset = load_dataset(name, input_root)
        scheme, folds, report = folds_of(dataset, scheme, options)
    if report is None:
        print(f"labels: {dataset.labels.polarity}")
        if is_lodo(scheme):
            domains = ", ".join(f"{k} {domain}" for k, domain in enumerate(held_out_domains(folds)))
            print(f"{scheme}: folds hold out {domains}")
    if fold is not None:
        check_fold(folds, fold)
    numbers = fold_numbers(folds) if fold is None else [fold]
    budget = None
    if minutes is not None:
        names = (name, scheme, models, numbers)
        budget = Budget.of(minutes, *names, overwrite=options.overwrite)
    jobs = plan_jobs(models, dataset, scheme, folds, numbers, options, budget)
    busy = _train_each(jobs, dataset.labels, budget)
    if busy and len(busy) == len(numbers) * len(models):
        raise busy[0]
    which = named_scheme(name, scheme)
    look = f"python -m src report {' '.join(models)} --data {name}{which}"
    print(f"look: {look}   (learning curves, confusion, the most wrong items)")
    refit = fold == paths.ALL
    after = (
        f"predict_ensemble.py --refit --data {name}" if refit else f"tune.py --data {name}{which}"
    )
    print(f"next: python {after}")


def _train_each(
    jobs: Iterable[Job], labels: LabelNames, budget: Budget | None
) -> list[LockedError]:
    """Train what is not finished; returns what says that another process is at work on a run."""
    from src.training.trainer import fit_fold  # torch, timm: seconds a mistake need not wait for

    busy: list[LockedError] = []
    for job in jobs:
        try:
            if not fit_fold(job):
                print(
                    f"{job.model} fold {job.fold}: finished already{_in_time(job)}, skipped "
                    "(--overwrite trains it again)"
                )
            elif job.options.report and ranks.leads():
                _report(job, labels)
        except LockedError as error:
            busy.append(error)
            print(f"{error}")
        if budget is not None:
            budget.end(job.names)
    return busy


def _in_time(job: Job) -> str:
    """Say what a finished run was made in, where that was not its config's length."""
    made = read_run(*job.names)["budget"]
    if made is None:
        return ""
    return f" ({made['epochs']:.1f} epochs in --minutes {made['ask']['minutes']:g})"


def _report(job: Job, labels: LabelNames) -> None:
    """Draw a fold that has ended. Its record is written: what goes wrong now costs no more."""
    again = f"python -m src report {job.model} --data {job.dataset}"
    try:
        from src.reporting.fold_report import report_fold  # matplotlib, for the one who looks

        picture, summary = report_fold(*job.names, labels)
    except Exception as error:
        if Clock.raised:  # Ctrl-C, which a library made another error of
            raise
        reason = message_of(error) if isinstance(error, UserError) else f"{error!r}"
        print(f"{job.title} is finished, but not drawn: {reason}; to try again: {again}")
    else:
        print(f"look: {picture} (curves, confusion, P(fake) by class), {summary}")


main = partial(parsers.main, "train")
