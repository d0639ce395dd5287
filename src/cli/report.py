"""`python -m src report`: what people look at after a run, as pictures and a page a model."""

from collections.abc import Sequence

from src.cli.common import (
    Parser,
    add_data_arguments,
    choose_dataset,
    existing_scheme,
    run_command,
    show_log,
)
from src.errors import UserError

DESCRIPTION = """Draw learning curves, confusion, reliability, ROC, the most wrong items.

  python -m src report                  every model with a finished run
  python -m src report effnet_b0        that one

Writes reports/<data set>/<scheme>/<model>/index.html and the pictures it shows, one a run."""


def make_parser() -> Parser:
    """Return the parser of the verb."""
    parser = Parser(DESCRIPTION, prog="python -m src report")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all with a run")
    add_data_arguments(parser)
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    name = choose_dataset(arguments.data, arguments.input_root)
    show_log()
    scheme = existing_scheme(name, arguments.scheme)
    if scheme is None:
        raise UserError(
            f"{name} has no folds{f' {arguments.scheme}' if arguments.scheme else ''} yet, so no "
            f"run either: python train_folds.py --model NAME --data {name}"
        )
    from src.inference.lineage import check_own
    from src.reporting.runs import collect_runs, reportable

    models = list(dict.fromkeys(arguments.models)) or reportable(name, scheme)
    if not models:
        raise UserError(
            f"{name}/{scheme} has no finished run yet: python train_folds.py --model NAME"
        )
    found = [collect_runs(name, scheme, model) for model in models]
    for runs in found:
        check_own(name, scheme, [runs.model], runs.folds, arguments.input_root)
    from src.data.layouts.load import load_dataset
    from src.reporting.report import scores_of, write_report

    dataset = load_dataset(name, arguments.input_root)
    for runs in found:
        page = write_report(runs, dataset)
        scores = scores_of(runs.whole) if runs.whole is not None else None
        text = "nothing held out"
        if scores is not None:
            text = (
                f"{scores['items']} items, macro_f1 {scores['macro_f1']:.4f} at 0.5, "
                f"auc {scores['auc']:.4f}, ece {scores['ece']:.4f}"
            )
        print(f"{runs.model}: {text} -> {page}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src report`; returns the exit code."""
    return run_command(_run, argv)
