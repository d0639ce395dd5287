"""`python -m src merge`: average weights, and see whether it helped."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import paths
from src.cli.common import (
    Parser,
    add_data_arguments,
    add_device_arguments,
    choose_dataset,
    run_command,
    show_log,
)
from src.cli.train import fold_argument
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.soups.plan import MergePlan, Selection
    from src.soups.run import Merged
    from src.training.job import Job

DESCRIPTION = """Merge the weights of trained models into members like any other.

  python -m src merge my_soup                     configs/merges/my_soup.yaml, every finished fold
  python -m src merge a.yaml b.yaml --fold 0      two merges, one table
  python -m src merge my_soup --holdout OTHER     ... scored on another data set as well
  python -m src merge files.yaml --output x.safetensors    files of weights, nothing scored

Fold k of every model is merged into fold k, so that the merge has out-of-fold predictions by
models that never saw the items. docs/soups.md says what a file of merges holds."""


def make_parser() -> Parser:
    """Return the parser of `python -m src merge`."""
    parser = Parser(DESCRIPTION, prog="python -m src merge")
    parser.add_argument("merges", nargs="+", metavar="MERGE", help="a name, or a .yaml file")
    parser.add_argument(
        "--fold", type=fold_argument, metavar="K",
        help="default: every fold that all models have finished; `all` merges their refits",
    )  # fmt: skip
    add_data_arguments(parser)
    add_device_arguments(parser)
    parser.add_argument(
        "--cache", default="auto", choices=["auto", "disk", "ram", "none"],
        help="where decoded pixels are kept, as in train_folds.py",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="merge finished folds again")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="what `base_model: start` was fine-tuned from"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not walk between the models beforehand"
    )
    parser.add_argument(
        "--no-bn", action="store_true", help="keep BatchNorm's statistics as they were merged"
    )
    parser.add_argument("--holdout", metavar="NAME", help="a labelled data set nobody trained on")
    parser.add_argument(
        "--push", metavar="USER/NAME", help="upload the merge to a (private) repository of the Hub"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="merge files of weights into this one"
    )
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    from src.config import config_file
    from src.soups.plan import read_plan

    plans = [read_plan(config_file("merges", word)) for word in arguments.merges]
    for place, plan in enumerate(plans):
        if plan.name in [other.name for other in plans[:place]]:
            raise UserError(f"{plan.name} is given twice; every merge wants its own name")
    show_log()
    if arguments.output is not None:
        _merge_files(plans, arguments)
        return
    _merge_folds(plans, arguments)


def _merge_files(plans: "list[MergePlan]", arguments: Namespace) -> None:
    from src.soups.files import merge_to_file

    if len(plans) != 1:
        raise UserError("--output takes the result of one merge")
    for flag, given in (("--data", arguments.data), ("--fold", arguments.fold),
                        ("--holdout", arguments.holdout), ("--push", arguments.push)):  # fmt: skip
        if given is not None:
            raise UserError(f"--output merges files and scores nothing; leave {flag} out")
    report = merge_to_file(plans[0], arguments.output, arguments.device)
    for warning in report.warnings:
        print(f"WARNING {warning}")
    print(
        f"{report.path}: {report.tensors} tensors, {report.size / 1e6:,.1f} MB, "
        f"{report.seconds:.1f} s"
    )


def _merge_folds(plans: "list[MergePlan]", arguments: Namespace) -> None:
    from dataclasses import replace

    from src.artifacts.folds import fold_numbers, read_folds
    from src.cli.tune_inputs import choose_scheme
    from src.data.layouts.load import load_dataset
    from src.soups.plan import MergePlan
    from src.soups.run import merge_fold
    from src.training.job import check_fold

    name = choose_dataset(arguments.data, arguments.input_root)
    dataset = load_dataset(name, arguments.input_root)
    scheme = choose_scheme(name, arguments.scheme)
    folds = read_folds(paths.folds_csv(name, scheme))
    if arguments.fold is not None:
        check_fold(folds, arguments.fold)
    if arguments.push is not None and len(plans) != 1:
        raise UserError("--push uploads one merge")
    if arguments.no_bn:
        plans = [replace(plan, batchnorm=0) for plan in plans]
    if arguments.holdout is not None:
        choose_dataset(arguments.holdout, arguments.input_root)
        if arguments.holdout == name:
            raise UserError(f"--holdout {name}: that is what the models were trained on")
    wanted = {plan.name: _folds(plan, name, scheme, fold_numbers(folds), arguments)
              for plan in plans}  # fmt: skip
    found: dict[str, MergePlan] = {plan.name: plan for plan in plans}
    for merge, numbers in wanted.items():
        for fold in numbers:
            job = _job(name, scheme, fold, dataset, folds, arguments)
            lines: list[str] = []
            report = partial(_report, found[merge].selection, lines)
            merged = merge_fold(
                found[merge], job, input_root=arguments.input_root, check=not arguments.no_check,
                report=report,
            )  # fmt: skip
            if merged.skipped:
                print(f"{merge} fold {fold}: merged already, skipped (--overwrite does it again)")
            else:
                print(
                    "\n".join(
                        [f"{merge} fold {fold}: {paths.checkpoint(*merged.job.names)}", *lines]
                    )
                )
    if arguments.push is not None:
        _push(plans[0], name, scheme, wanted[plans[0].name], folds, arguments.push)
    shared = [fold for fold in fold_numbers(folds) if all(fold in n for n in wanted.values())]
    from src.cli.printing.merge import print_scores

    print_scores(plans, dataset, scheme, folds, shared, arguments)


def _push(
    plan: "MergePlan",
    dataset: str,
    scheme: str,
    folds: Sequence[paths.FoldName],
    table: Any,  # noqa: ANN401
    repo: str,
) -> None:
    from tempfile import TemporaryDirectory

    from src.models.hub import push_files
    from src.soups.card import card_of, public_record

    card = card_of(plan, dataset, scheme, folds, table)
    files: dict[str, Path] = {}
    with TemporaryDirectory() as home:
        for fold in folds:
            names, record = (dataset, scheme, plan.name, fold), f"fold_{fold}.json"
            files[f"fold_{fold}.safetensors"] = paths.checkpoint(*names)
            files[record] = public_record(paths.run_record(*names), Path(home) / record)
        done = push_files(repo, files, card, f"{plan.name} of {dataset}/{scheme}")
    print(f"uploaded: {done}")


def _folds(
    plan: "MergePlan", dataset: str, scheme: str, numbers: list[int], arguments: Namespace
) -> list[paths.FoldName]:
    from src.soups.ingredients import finished_folds

    if arguments.fold is not None:
        return [arguments.fold]
    names = list(dict.fromkeys(name for recipe in plan.recipes for name in recipe.sources))
    names = [name for name in names if name not in [recipe.name for recipe in plan.recipes]]
    done = finished_folds(names, dataset, scheme, numbers)
    if not done:
        raise UserError(
            f"{plan.name}: no fold of {dataset}/{scheme} is finished by all of {', '.join(names)}; "
            "train one: python train_folds.py --model MODEL --fold 0 --data " + dataset
        )
    return list(done)


def _job(
    name: str, scheme: str, fold: paths.FoldName, dataset: Any, folds: Any, arguments: Namespace  # noqa: ANN401
) -> "Job":  # fmt: skip
    from src.config import BackboneConfig, ModelConfig
    from src.training.job import Job, Options, job_table

    options = Options.of(arguments)  # its weights are those of `base_model: start`
    unknown = ModelConfig(BackboneConfig(""))  # the first ingredient's takes its place
    table = job_table(dataset.train, folds)
    return Job("", unknown, name, scheme, fold, dataset.root, table, options)


def _report(selection: "Selection", lines: list[str], merged: "Merged") -> None:
    """Write what people look at of a merge; adds to `lines` what is to be said of it."""
    from src.reporting.charts import plot_paths

    job = merged.job
    home = paths.merge_report_dir(job.dataset, job.scheme)
    if merged.paths:
        file = home / f"{job.model}_fold_{job.fold}_path.png"
        worst = max(path.barrier for path in merged.paths)
        plot = plot_paths(merged.paths, f"{job.model}, fold {job.fold}", file)
        lines.append(
            f"  highest barrier between its models: {worst:+.3f} nats of log loss; plot: {plot}"
        )
    if merged.tried is not None:
        lines += _report_tried(merged.tried, selection, f"{job.model}, fold {job.fold}", home)
    if job.is_refit:
        lines.append(
            "  it has seen every training row: no score of it on them means anything, and tune.py "
            "does not take it"
        )


def _report_tried(
    table: "pd.DataFrame", selection: "Selection", title: str, home: Path
) -> list[str]:
    """Write what a choice looked at, with a plot where it moved along one parameter."""
    from src.artifacts.files import write_csv
    from src.reporting.charts import plot_sweep
    from src.soups.select import SCORES, sweep_axis

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src merge`; returns the exit code."""
    return run_command(_run, argv)
