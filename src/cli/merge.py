"""`python -m src merge`: average weights, and see whether it helped."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import fold_numbers, read_folds
from src.cli import parsers
from src.cli.common import choose_dataset, choose_scheme, show_log, taken
from src.cli.merge_table import Scoring, print_scores
from src.config import BackboneConfig, ModelConfig, config_file
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.models.hub import push_files
from src.reporting.charts import plot_paths, plot_sweep
from src.soups.card import card_of, public_record
from src.soups.files import merge_to_file
from src.soups.ingredients import finished_folds
from src.soups.plan import MergePlan, Selection, read_plan
from src.soups.run import Merged, merge_fold
from src.soups.select import SCORES, sweep_axis
from src.training.job import Job, Options, check_fold, job_table


@dataclass(frozen=True)
class Merging:
    """Which folds are merged, and what else is done with them."""

    fold: paths.FoldName | None = None  # None takes every fold that all models have finished
    no_check: bool = False  # do not walk between the models beforehand
    no_bn: bool = False  # keep BatchNorm's statistics as they were merged
    holdout: str | None = None  # a data set to score on as well
    push: str | None = None  # repository of the Hub
    input_root: Path | None = None  # folder of data sets, instead of `input/`


def run_merge(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    plans = [read_plan(config_file("merges", word)) for word in arguments.merges]
    for place, plan in enumerate(plans):
        if plan.name in [other.name for other in plans[:place]]:
            raise UserError(f"{plan.name} is given twice; every merge wants its own name")
    show_log()
    if arguments.output is not None:
        _merge_files(plans, arguments)
        return
    name = choose_dataset(arguments.data, arguments.input_root)
    options = taken(Options, arguments)  # its weights are those of `base_model: start`
    merge_folds(plans, name, arguments.scheme, taken(Merging, arguments), options)


def _merge_files(plans: list[MergePlan], arguments: Namespace) -> None:
    if len(plans) != 1:
        raise UserError("--output takes the result of one merge")
    for flag in ("data", "fold", "holdout", "push"):
        if getattr(arguments, flag) is not None:
            raise UserError(f"--output merges files and scores nothing; leave --{flag} out")
    report = merge_to_file(plans[0], arguments.output, arguments.device)
    for warning in report.warnings:
        print(f"WARNING {warning}")
    print(
        f"{report.path}: {report.tensors} tensors, {report.size / 1e6:,.1f} MB, "
        f"{report.seconds:.1f} s"
    )


def merge_folds(
    plans: Sequence[MergePlan], name: str, scheme: str | None, merging: Merging, options: Options
) -> None:
    """Merge the folds of models of a data set, score the merges and print the table."""
    dataset = load_dataset(name, merging.input_root)
    scheme = choose_scheme(name, scheme)
    folds = read_folds(paths.folds_csv(name, scheme))
    if merging.fold is not None:
        check_fold(folds, merging.fold)
    if merging.push is not None and len(plans) != 1:
        raise UserError("--push uploads one merge")
    if merging.no_bn:
        plans = [replace(plan, batchnorm=0) for plan in plans]
    if merging.holdout is not None:
        choose_dataset(merging.holdout, merging.input_root)
        if merging.holdout == name:
            raise UserError(f"--holdout {name}: that is what the models were trained on")
    unknown = ModelConfig(BackboneConfig(""))  # the first ingredient's takes its place
    table = job_table(dataset.train, folds)
    wanted = {
        plan.name: [merging.fold] if merging.fold is not None else _folds(plan, name, scheme, folds)
        for plan in plans
    }
    for plan in plans:
        for fold in wanted[plan.name]:
            job = Job("", unknown, name, scheme, fold, dataset.root, table, options)
            _merge_fold(plan, job, merging)
    if merging.push is not None:
        _push(plans[0], name, scheme, wanted[plans[0].name], folds, merging.push)
    shared = [fold for fold in fold_numbers(folds) if all(fold in n for n in wanted.values())]
    scoring = Scoring(dataset, scheme, folds, options, merging.holdout, merging.input_root)
    print_scores(plans, shared, scoring)


def _merge_fold(plan: MergePlan, job: Job, merging: Merging) -> None:
    lines: list[str] = []
    report, check = partial(_report, plan.selection, lines), not merging.no_check
    merged = merge_fold(plan, job, input_root=merging.input_root, check=check, report=report)
    what = f"{plan.name} fold {job.fold}"
    if merged.skipped:
        print(f"{what}: merged already, skipped (--overwrite does it again)")
    else:
        print("\n".join([f"{what}: {paths.checkpoint(*merged.job.names)}", *lines]))


def _push(
    plan: MergePlan,
    dataset: str,
    scheme: str,
    folds: Sequence[paths.FoldName],
    table: pd.DataFrame,
    repo: str,
) -> None:
    card = card_of(plan, dataset, scheme, folds, table)
    files: dict[str, Path] = {}
    with TemporaryDirectory() as home:
        for fold in folds:
            names, record = (dataset, scheme, plan.name, fold), f"fold_{fold}.json"
            files[f"fold_{fold}.safetensors"] = paths.checkpoint(*names)
            files[record] = public_record(paths.run_record(*names), Path(home) / record)
        done = push_files(repo, files, card, f"{plan.name} of {dataset}/{scheme}")
    print(f"uploaded: {done}")


def _folds(plan: MergePlan, dataset: str, scheme: str, folds: pd.DataFrame) -> list[paths.FoldName]:
    """Return the folds that all ingredients of a merge have finished."""
    names = list(dict.fromkeys(name for recipe in plan.recipes for name in recipe.sources))
    names = [name for name in names if name not in [recipe.name for recipe in plan.recipes]]
    done = finished_folds(names, dataset, scheme, fold_numbers(folds))
    if not done:
        raise UserError(
            f"{plan.name}: no fold of {dataset}/{scheme} is finished by all of {', '.join(names)}; "
            "train one: python train_folds.py --model MODEL --fold 0 --data " + dataset
        )
    return list(done)


def _report(selection: Selection, lines: list[str], merged: Merged) -> None:
    """Write what people look at of a merge; adds to `lines` what is to be said of it."""
    job = merged.job
    home, title = paths.merge_report_dir(job.dataset, job.scheme), f"{job.model}, fold {job.fold}"
    if merged.paths:
        worst = max(path.barrier for path in merged.paths)
        file = home / f"{job.model}_fold_{job.fold}_path.png"
        plot = plot_paths(merged.paths, title, file)
        lines.append(
            f"  highest barrier between its models: {worst:+.3f} nats of log loss; plot: {plot}"
        )
    if merged.tried is not None:
        lines += _report_tried(merged.tried, selection, title, home)
    if job.is_refit:
        lines.append(
            "  it has seen every training row: no score of it on them means anything, and tune.py "
            "does not take it"
        )


def _report_tried(table: pd.DataFrame, selection: Selection, title: str, home: Path) -> list[str]:
    """Write what a choice looked at, with a plot where it moved along one parameter."""
    stem = title.replace(", ", "_").replace(" ", "_")
    file = home / f"{stem}_tried.csv"
    write_csv(file, table)
    lines = [f"  {len(table)} merges tried, with scores on the rows that one was chosen on: {file}"]
    axis = sweep_axis(selection)
    if axis is not None and len(table) > 1:
        scores = {name: table[name].tolist() for name in SCORES}
        file = file.with_name(f"{stem}_sweep.png")
        lines.append(f"  plot: {plot_sweep(table[axis].tolist(), scores, axis, title, file)}")
    return lines


main = partial(parsers.main, "merge")
