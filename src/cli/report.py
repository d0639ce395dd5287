"""`python -m src report`: what people look at after a run, as pictures and a page a model."""

from argparse import Namespace
from functools import partial

from src.artifacts.folds import existing_scheme
from src.cli import parsers
from src.cli.common import choose_dataset, show_log
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.inference.lineage import check_own
from src.reporting.report import CROSS, FITTED, scores_of, write_report
from src.reporting.runs import collect_runs, reportable


def run_report(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    name = choose_dataset(arguments.data, arguments.input_root)
    show_log()
    scheme = existing_scheme(name, arguments.scheme)
    if scheme is None:
        raise UserError(
            f"{name} has no folds{f' {arguments.scheme}' if arguments.scheme else ''} yet, so no "
            f"run either: python train_folds.py --model NAME --data {name}"
        )
    models = list(dict.fromkeys(arguments.models)) or reportable(name, scheme)
    if not models:
        raise UserError(
            f"{name}/{scheme} has no finished run yet: python train_folds.py --model NAME"
        )
    found = [collect_runs(name, scheme, model) for model in models]
    for runs in found:
        check_own(name, scheme, [runs.model], runs.folds, arguments.input_root)
    dataset = load_dataset(name, arguments.input_root)
    for runs in found:
        page = write_report(runs, dataset)
        scores = scores_of(runs.whole) if runs.whole is not None else None
        text = "nothing held out"
        if scores is not None:
            cross = f"{scores[CROSS]:.4f} cross-fitted, " if CROSS in scores else ""
            text = (
                f"{scores['items']} items, macro_f1 {cross}{scores['macro_f1']:.4f} at 0.5 "
                f"(in-sample {scores[FITTED]:.4f}), auc {scores['auc']:.4f}, "
                f"ece {scores['ece']:.4f}"
            )
        print(f"{runs.model}: {text} -> {page}")


main = partial(parsers.main, "report")
