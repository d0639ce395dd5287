"""`python -m src folds`: make the folds, once, and say what plain folds would have leaked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.cli.common import Parser, add_data_arguments, choose_dataset, run_command, show_log
from src.errors import UserError

if TYPE_CHECKING:
    from src.data.folds.fold_report import FoldReport
    from src.data.folds.groups import GroupReport

DESCRIPTION = """Make the fold file of a data set, or show the one that exists.

  python -m src folds                        5 folds, seed 42
  python -m src folds --n-folds 10 --seed 7  written as sgkf10_s7.csv
  python -m src folds --scheme lodo          a fold a domain: leave one domain out
  python -m src folds --no-scan              opens no file: sgkf5_s42_unscanned.csv

Copies and given groups never straddle a fold. A fold file is never overwritten."""


def make_parser() -> Parser:
    """Return the parser of `python -m src folds`."""
    parser = Parser(DESCRIPTION, prog="python -m src folds")
    add_data_arguments(parser)
    parser.add_argument("--n-folds", type=int, metavar="K", help="number of folds (default 5)")
    parser.add_argument("--seed", type=int, metavar="S", help="of the split (default 42)")
    parser.add_argument(
        "--no-scan", action="store_true",
        help="open no file: only given groups are kept together, copies are not looked for, and "
        "an unreadable item is found only in training",
    )  # fmt: skip
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    name = choose_dataset(arguments.data, arguments.input_root)
    numbers = arguments.n_folds is not None or arguments.seed is not None
    if numbers and arguments.scheme is not None:
        raise UserError("--scheme already says how many folds and which seed; drop one of the two")
    if arguments.no_scan and arguments.scheme is not None:
        raise UserError("--scheme already says it (NAME_unscanned); drop --no-scan")
    show_log()
    from src.data.folds.fold_report import report_folds
    from src.data.folds.make import ensure_folds
    from src.data.folds.schemes import UNSCANNED, default_scheme
    from src.data.layouts.load import load_dataset

    dataset = load_dataset(name, arguments.input_root)
    scheme = arguments.scheme
    if numbers:
        n_folds = dataset.config.n_folds if arguments.n_folds is None else arguments.n_folds
        seed = dataset.config.seed if arguments.seed is None else arguments.seed
        scheme = f"sgkf{n_folds}_s{seed}"
    if arguments.no_scan:
        scheme = (scheme or default_scheme(dataset)) + UNSCANNED
    scheme, folds, report = ensure_folds(dataset, scheme)
    if report is None:
        print(f"{name}: the folds exist already; a fold file is written once")
        report = report_folds(dataset, scheme, folds)
    print_report(report)


def print_report(report: "FoldReport") -> None:
    """Print a fold file: where it lies, its folds, what was left out, copies, leaks."""
    print(f"folds: {report.path} ({report.scheme})")
    print(f"  labels: {report.labels.polarity}")
    real, fake = report.labels.names
    wide = [max(8, len(real)), max(8, len(fake)), max(7, len(fake) + 2)]
    print(
        f"  {'fold':>5} {'items':>8} {real:>{wide[0]}} {fake:>{wide[1]}} "
        f"{fake + ' %':>{wide[2]}} {'groups':>8}"
    )
    held_out: dict[object, str] = dict(enumerate(report.domains))
    for fold, part in report.folds.groupby("fold"):
        fakes = int(part["label"].sum())
        print(
            f"  {fold:>5} {len(part):>8} {len(part) - fakes:>{wide[0]}} {fakes:>{wide[1]}} "
            f"{100 * fakes / len(part):>{wide[2]}.2f} {part['group'].nunique():>8}"
            + ("  always trained on, never scored" if fold == -1 else "")
            + (f"  holds out {held_out[fold]}" if fold in held_out else "")
        )
    shares = report.folds[report.folds["fold"] >= 0].groupby("fold")["label"].mean()
    print(
        f"  label balance: share of fakes differs by {100 * (shares.max() - shares.min()):.2f} "
        "points between folds"
    )
    print_excluded(report.excluded["item_id"].tolist(), report.excluded["reason"].tolist())
    if report.scheme.endswith("_unscanned"):
        print(
            "no file was opened: unreadable items, equal files and look-alikes are not known, only "
            "given groups are kept together"
        )
    else:
        print_groups(report.groups)
    print(f"{report.plain} would have leaked (items with a relative in another fold):")
    for leak in report.leaks:
        print(f"  {leak.reason + ':':<14} {leak.items:>8} items, {100 * leak.share:6.2f} %")
    for warning in report.warnings:
        print(warning)


def print_excluded(ids: Sequence[str], reasons: Sequence[str]) -> None:
    """Print the items that are left out: their number and the first ten."""
    if not ids:
        return
    print(f"left out of training: {len(ids)} items")
    for item_id, reason in list(zip(ids, reasons, strict=True))[:10]:
        print(f"  {item_id}: {reason}")
    if len(ids) > 10:
        print(f"  ... and {len(ids) - 10} more")


def print_groups(groups: "GroupReport") -> None:
    """Print what was found about copies."""
    from src.data.folds.near_duplicates import MAX_DISTANCE

    print(
        f"groups: {groups.groups} of {groups.items} train items, the largest has "
        f"{groups.largest}; {groups.given} groups of two or more given by the data set"
    )
    print(f"  equal files: {groups.exact_items} in {groups.exact_sets} sets")
    print(
        f"  look-alikes (perceptual hash within {MAX_DISTANCE} bits, mirrored too): "
        f"{groups.near_items} items in {groups.near_pairs} pairs, {groups.near_conflicts} pairs "
        "of a real and a fake"
    )
    if groups.test_items:
        print(
            f"  test items whose file is in train: {groups.test_exact}; that look like a train "
            f"item: {groups.test_near}"
        )
    if groups.flat:
        print(f"  too flat for a perceptual hash, compared by file only: {groups.flat}")
    for ids in groups.conflicts[:10]:
        print(f"  WARNING one file under both labels: {', '.join(ids)}")
    if len(groups.conflicts) > 10:
        print(f"  ... and {len(groups.conflicts) - 10} more such files")
    for chain in groups.chains:
        print(
            f"  chain: look-alikes linked {chain.items} items (such as {chain.example}); inside "
            f"it only distance <= {chain.distance} counts now, the largest group left has "
            f"{chain.left}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src folds`; returns the exit code."""
    return run_command(_run, argv)
