"""`python -m src folds`: make the folds, once, and say what plain folds would have leaked."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.atomic import file_lock
from src.artifacts.clusters import Clusters
from src.artifacts.folds import CLUSTERS
from src.cli import parsers
from src.cli.common import choose_dataset, print_first, print_table, show_log, taken
from src.config import read_model
from src.data.audit.shift import TEST, SchemeShift, compare_schemes
from src.data.folds.clusters import FeaturesOf, FrozenFeatures
from src.data.folds.fold_report import FoldReport, report_folds
from src.data.folds.groups import GroupReport
from src.data.folds.make import ensure_folds
from src.data.folds.near_duplicates import MAX_DISTANCE
from src.data.folds.schemes import UNSCANNED, default_scheme, full_name
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.training.job import Job, Options

FROZEN = "effnet_lite0_probe"  # whose weights come with the installation


def run_folds(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    name = choose_dataset(arguments.data, arguments.input_root)
    if arguments.shift:
        _check_shift(arguments)
    numbers = arguments.n_folds is not None or arguments.seed is not None
    if numbers and arguments.scheme not in (None, CLUSTERS):
        raise UserError("--scheme already says how many folds and which seed; drop one of the two")
    if arguments.no_scan and arguments.scheme is not None:
        raise UserError("--scheme already says it (NAME_unscanned); drop --no-scan")
    read_model(arguments.features or FROZEN)  # a typo answers before a data set is read
    show_log()
    dataset = load_dataset(name, arguments.input_root)
    scheme = arguments.scheme
    if numbers and scheme == CLUSTERS:
        scheme = full_name(dataset, scheme, arguments.n_folds, arguments.seed)
    elif numbers:
        n_folds = dataset.config.n_folds if arguments.n_folds is None else arguments.n_folds
        seed = dataset.config.seed if arguments.seed is None else arguments.seed
        scheme = f"sgkf{n_folds}_s{seed}"
    if arguments.no_scan:
        scheme = (scheme or default_scheme(dataset)) + UNSCANNED
    options = taken(Options, arguments, track="none", report=False)
    features_of = frozen_features(dataset, options, arguments.features or FROZEN)
    if arguments.shift:
        dataset.require_train()
        _print_shift(dataset, compare_schemes(dataset, features_of), arguments.features or FROZEN)
        return
    scheme, folds, report = ensure_folds(dataset, scheme, features_of)
    if report is None:
        print(f"{name}: the folds exist already; a fold file is written once")
        report = report_folds(dataset, scheme, folds)
        _check_features(report, arguments.features)
    _print_report(report)
    print(f"which scheme tells most about shift: python -m src folds --data {name} --shift")
    if arguments.preview:
        _draw(dataset, report)


def folds_of(
    dataset: Dataset, scheme: str | None, options: Options
) -> tuple[str, pd.DataFrame, FoldReport | None]:
    """Return a scheme and its fold file; where it is made here and now, it is printed.

    `options` say what computes the features of scheme `clusters`, which are `FROZEN`'s.
    """
    features_of = frozen_features(dataset, replace(options, weights=None, no_pretrained=False))
    with file_lock(paths.folds_lock(dataset.name), "the folds", wait=True):
        scheme, folds, report = ensure_folds(dataset, scheme, features_of)
    if report is not None:
        _print_report(report)
    return scheme, folds, report


def frozen_features(dataset: Dataset, options: Options, model: str = FROZEN) -> FeaturesOf:
    """Return what gives the features of a data set's items; see `item_features`.

    `dataset`: whose items; `options`: what computes, and from which weights; `model`: its config.
    """

    def features_of(table: pd.DataFrame) -> FrozenFeatures:
        from src.training.features import item_features  # torch, which other schemes do not need

        job = Job(model, read_model(model), dataset.name, "", 0, dataset.root, table, options)
        return item_features(job)

    return features_of


def _check_shift(arguments: Namespace) -> None:
    """Raise a UserError for what would change nothing beside --shift."""
    given = {
        "--scheme": arguments.scheme, "--n-folds": arguments.n_folds, "--seed": arguments.seed,
        "--no-scan": arguments.no_scan or None, "--preview": arguments.preview or None,
    }  # fmt: skip
    names = [flag for flag, value in given.items() if value is not None]
    if names:
        raise UserError(
            f"--shift compares all schemes that are there or could be, and makes none; drop "
            f"{' '.join(names)}"
        )


def _print_shift(dataset: Dataset, found: Sequence[SchemeShift], model: str) -> None:
    """Print how far each scheme's held-out items are from those trained on, and what that means."""
    test = [one for one in found if one.scheme == TEST]
    schemes = [one for one in found if one.aucs and one.scheme != TEST]
    make = f"python -m src folds --data {dataset.name} --scheme"
    rows = [["scheme", "auc", "by fold", "not made yet"]]
    for one in schemes:
        by_fold = " ".join(_figure(area, 2) for area in one.aucs)
        way = "" if one.is_made else f"{make} {one.scheme}"
        rows.append([one.scheme, _figure(one.mean, 3), by_fold, way])
    print(
        f"how well held-out items are told from those that are trained on, by what {model} sees "
        "(AUC, mean over folds; .5: not at all)"
    )
    print_table(rows)
    for one in found:
        if one.refused:
            print(f"{one.scheme}: {one.refused}")
        elif one.silent and one.scheme != TEST:
            folds = " ".join(map(str, one.silent))
            print(f"{one.scheme}: not told of fold(s) {folds}, too few groups; not in the mean")
    known = [one for one in schemes if len(one.silent) < len(one.aucs)]
    if not known:
        print("of no scheme can it be told: too few groups")
        return
    _print_first(known)
    if test:
        far = test[0].mean
        if test[0].silent:
            print("of the test items it cannot be told: too few groups")
            return
        near = min(known, key=lambda one: abs(one.mean - far))
        print(f"test items are told from train items by {far:.3f}; {near.scheme} comes nearest")


def _print_first(schemes: Sequence[SchemeShift]) -> None:
    """Say which scheme comes first, and which does where clusters, cut from these features, do."""
    print(
        f"{schemes[0].scheme} tells most about shift: what its folds hold out is least like the "
        "rest, so a score there is of kinds that were not trained on; near .5 it is of more of the "
        "same"
    )
    if schemes[0].scheme.startswith(CLUSTERS):
        print(
            "but clusters are cut from such features as they are judged by here, so that they come "
            "first almost by construction"
        )
        others = [one for one in schemes if not one.scheme.startswith(CLUSTERS)]
        if others:
            print(f"of the other schemes {others[0].scheme} tells most: {others[0].mean:.3f}")


def _figure(area: float, digits: int) -> str:
    return "-" if np.isnan(area) else f"{area:.{digits}f}"


def _draw(dataset: Dataset, report: FoldReport) -> None:
    if report.clusters is None:
        raise UserError(
            f"--preview draws clusters, and {report.scheme} has none: --scheme {CLUSTERS}"
        )
    from src.reporting.contact_sheets import draw_clusters  # matplotlib

    print(f"preview: {draw_clusters(dataset, report.scheme, report.folds, report.clusters)}")


def _check_features(report: FoldReport, wanted: str | None) -> None:
    """Raise where clusters of other features were asked for than those that the folds are of."""
    made = report.clusters
    if wanted is None or made is None or made.model == wanted:
        return
    raise UserError(
        f"{report.path} was made of {made.model}'s features, not of {wanted}'s, and a fold file is "
        "written once: take another seed (--scheme clusters20_s43)"
    )


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
    held_out = _held_out(report)
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
    if report.clusters is not None:
        _print_clusters(report.clusters, report.folds)
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


def _held_out(report: FoldReport) -> dict[object, str]:
    """Return what each fold holds out: a domain, or clusters by number."""
    if report.clusters is None:
        return dict(enumerate(report.domains))
    clusters = report.folds.merge(report.clusters.table, on="item_id").groupby("fold")["cluster"]
    return {fold: "clusters " + " ".join(map(str, sorted(set(part)))) for fold, part in clusters}


def _print_clusters(clusters: Clusters, folds: pd.DataFrame) -> None:
    """Print what the clusters hold: how even they are, and how many follow the label."""
    table = folds.merge(clusters.table, on="item_id").groupby("cluster")["label"]
    sizes, means = table.size(), table.mean()
    alone = sizes[(means == 0) | (means == 1)]
    print(
        f"clusters: {len(sizes)} by features of {clusters.model}, of {sizes.min()} to "
        f"{sizes.max()} items; {len(alone)} hold one class alone ({alone.sum()} items)"
    )


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
