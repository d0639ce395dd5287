"""`python -m src folds`: make the folds, once, and say what plain folds would have leaked."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import pandas as pd

from src import paths
from src.artifacts.atomic import file_lock
from src.cli import parsers
from src.cli.common import choose_dataset, print_first, show_log
from src.data.folds.fold_report import FoldReport, report_folds
from src.data.folds.groups import GroupReport
from src.data.folds.make import ensure_folds
from src.data.folds.near_duplicates import MAX_DISTANCE
from src.data.folds.schemes import UNSCANNED, default_scheme
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.errors import UserError


def run_folds(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    name = choose_dataset(arguments.data, arguments.input_root)
    numbers = arguments.n_folds is not None or arguments.seed is not None
    if numbers and arguments.scheme is not None:
        raise UserError("--scheme already says how many folds and which seed; drop one of the two")
    if arguments.no_scan and arguments.scheme is not None:
        raise UserError("--scheme already says it (NAME_unscanned); drop --no-scan")
    show_log()
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
    _print_report(report)


def folds_of(dataset: Dataset, scheme: str | None) -> tuple[str, pd.DataFrame, FoldReport | None]:
    """Return a scheme and its fold file; where it is made here and now, it is printed."""
    with file_lock(paths.folds_lock(dataset.name), "the folds", wait=True):
        scheme, folds, report = ensure_folds(dataset, scheme)
    if report is not None:
        _print_report(report)
    return scheme, folds, report


def _print_report(report: FoldReport) -> None:
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
    print_first([f"{item}: {reason}" for item, reason in zip(ids, reasons, strict=True)])


def print_groups(groups: GroupReport) -> None:
    """Print what was found about copies."""
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
    both = [f"WARNING one file under both labels: {', '.join(ids)}" for ids in groups.conflicts]
    print_first(both, " such files")
    for chain in groups.chains:
        print(
            f"  chain: look-alikes linked {chain.items} items (such as {chain.example}); inside "
            f"it only distance <= {chain.distance} counts now, the largest group left has "
            f"{chain.left}"
        )


main = partial(parsers.main, "folds")
