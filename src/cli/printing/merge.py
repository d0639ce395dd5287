"""The table of `python -m src merge`: ingredients, merges, and the ensemble they stand against."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from src import paths
from src.compute.request import Compute

if TYPE_CHECKING:
    from src.data.items.manifest import Dataset
    from src.soups.contenders import Line
    from src.soups.plan import MergePlan
    from src.soups.table import Contender, Held

Trained = tuple[str, paths.FoldName]  # model, fold
LEGEND = """macro_f1: rows of one half, at the threshold (and by the merge, where one was chosen) \
that the other half chose; at_0.5: by the same merges at 0.5; forwards: passes of a net an item"""
FLATTERED = """epoch chosen here: an epoch was chosen by its score on these very rows (selection: \
best), so these scores are flattered"""
LEFT_OUT = """leave one domain out: at_0.5 and auc of what is not marked as chosen are of domains \
that nothing was trained or chosen on; thresholds, and merges marked as chosen, were chosen on the \
other half of the same domain"""


def print_scores(
    plans: "Sequence[MergePlan]",
    dataset: "Dataset",
    scheme: str,
    table: pd.DataFrame,
    folds: Sequence[int],
    arguments: Namespace,
) -> None:
    """Print the table, write it and the plots.

    Args:
        plans: the merges.
        dataset: what they were trained on.
        scheme: fold scheme.
        table: the fold file.
        folds: those that all merges have.
        arguments: of the command.
    """
    from src.artifacts.files import write_csv
    from src.data.folds.schemes import is_lodo
    from src.soups.contenders import lines_of
    from src.soups.table import TooFewGroupsError, as_table, by_domain, held_rows

    if not folds and arguments.holdout is None:
        print("nothing is held out here, so there is nothing to score (--holdout NAME)")
        return
    if not folds:
        _print_refits(plans, dataset, scheme, arguments)
        return
    lines, aside = lines_of([plan.name for plan in plans], dataset.name, scheme, folds[0])
    try:
        held, lodo = held_rows(table, folds), is_lodo(scheme)
    except TooFewGroupsError as error:
        print(f"{error}: no table")
        if arguments.holdout is not None:
            found = {one.name: (one.kind, [(one.name, k) for k in folds]) for one in lines}
            _print_elsewhere(found, aside, dataset, scheme, arguments)
        return
    contenders, labels = _contenders(lines, held, table, dataset, scheme, arguments)
    found = as_table(held, contenders, labels, lodo=lodo)
    which = "fold" if len(folds) == 1 else "folds"
    print(f"\n{which} {', '.join(map(str, folds))}: {len(held.label)} held-out rows in two halves")
    print(found.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-"))
    _print_legend(contenders, aside, lodo=lodo)
    home = paths.merge_report_dir(dataset.name, scheme)
    name = "_".join(plan.name for plan in plans)[:80]
    write_csv(home / f"{name}.csv", found)
    print(f"table: {home / f'{name}.csv'}")
    title = f"{name}, {dataset.name}{', leave one domain out' if lodo else ''}"
    rows = f"{len(held.label)} {'rows of left-out domains' if lodo else 'held-out rows'}"
    _scatter(contenders, labels, found, rows, title, home / f"{name}.png")
    x, y, points = by_domain(held, contenders, lodo=lodo)
    if points:
        from src.reporting.charts import plot_scatter

        print(f"plot: {plot_scatter(points, x, y, title, home / f'{name}_domains.png')}")
    print(f"next: python tune.py --data {dataset.name}")


def _contenders(
    lines: "Sequence[Line]",
    held: "Held",
    table: pd.DataFrame,
    dataset: "Dataset",
    scheme: str,
    arguments: Namespace,
) -> "tuple[list[Contender], dict[str, Any]]":
    """Return what stands in the table, and the labels of another data set by its name, if any."""
    from src.soups.contenders import ensemble_of, read_contender

    contenders = [
        read_contender(held, table, (dataset.name, scheme, one.name), one.kind, one.forwards)
        for one in lines
    ]
    labels: dict[str, Any] = {}
    if arguments.holdout is not None:
        trained = [[(one.name, fold) for fold in held.folds] for one in lines]
        label, logits = _elsewhere(trained, dataset, scheme, arguments)
        labels[arguments.holdout] = label
        contenders = [
            replace(one, elsewhere=logit) for one, logit in zip(contenders, logits, strict=True)
        ]
    ingredients = [one for one in contenders if one.kind == "ingredient"]
    if len(ingredients) > 1:
        contenders.append(ensemble_of(ingredients))
    return contenders, labels


def _print_legend(contenders: "Sequence[Contender]", aside: dict[str, str], *, lodo: bool) -> None:
    print(LEGEND)
    if any(one.flattered for one in contenders):
        print(FLATTERED)
    if lodo:
        print(LEFT_OUT)
    for one in contenders:
        if one.unscored:
            print(f"no score of {one.name}: {one.unscored}")
    _print_aside(aside)


def _print_aside(aside: dict[str, str]) -> None:
    for name, why in aside.items():
        print(f"not in the table, nor in the ensemble: {name} ({why})")


def _elsewhere(
    trained: "Sequence[Sequence[Trained]]", dataset: "Dataset", scheme: str, arguments: Namespace
) -> tuple[Any, list[Any]]:
    """Return labels of another data set's items, and logits of them: a mean over each list."""
    from src.artifacts.runs import read_run
    from src.data.layouts.load import load_dataset
    from src.inference.lineage import trained_sets
    from src.soups.contenders import predict_holdout, read_holdout

    other = load_dataset(arguments.holdout, arguments.input_root)
    runs = [
        (name, read_run(dataset.name, scheme, name, fold))
        for each in trained
        for name, fold in each
    ]
    known = trained_sets(runs, other, arguments.input_root)
    holdout = read_holdout(other, known, input_root=arguments.input_root)
    compute = Compute.of(arguments).for_items(len(holdout))
    files = [[paths.checkpoint(dataset.name, scheme, *one) for one in each] for each in trained]
    logits, readable = predict_holdout(other, holdout, files, compute)
    return holdout["label"].to_numpy("int64")[readable], [logit[readable] for logit in logits]


def _print_refits(
    plans: "Sequence[MergePlan]", dataset: "Dataset", scheme: str, arguments: Namespace
) -> None:
    """Print what merges that held nothing out, and their ingredients, are worth elsewhere."""
    from src.artifacts.runs import read_run
    from src.soups.contenders import why_aside

    found: dict[str, tuple[str, list[Trained]]] = {}
    aside: dict[str, str] = {}
    for plan in plans:
        record = read_run(dataset.name, scheme, plan.name, paths.ALL)
        for one in record["merged_from"]["ingredients"]:
            why = why_aside(one, (dataset.name, scheme, one["fold"]))
            if why:
                aside.setdefault(one["name"], why)
            else:
                found.setdefault(one["name"], ("ingredient", [(one["model"], one["fold"])]))
    found |= {plan.name: ("merge", [(plan.name, paths.ALL)]) for plan in plans}
    _print_elsewhere(found, aside, dataset, scheme, arguments)


def _print_elsewhere(
    found: "Mapping[str, tuple[str, Sequence[Trained]]]",
    aside: dict[str, str],
    dataset: "Dataset",
    scheme: str,
    arguments: Namespace,
) -> None:
    """Print what ingredients (first) and merges are worth on another data set, and nothing else."""
    from src.metrics import auc, macro_f1
    from src.soups.contenders import mean_prob
    from src.soups.table import ENSEMBLE

    parts = sum(kind == "ingredient" for kind, _ in found.values())
    label, logits = _elsewhere([runs for _, runs in found.values()], dataset, scheme, arguments)
    rows = [(name, kind) for name, (kind, _) in found.items()]
    if parts > 1:
        rows, logits = [*rows, (ENSEMBLE, "ensemble")], [*logits, mean_prob(logits[:parts])]
    print(f"\n{arguments.holdout}: {len(label)} items that none of them saw, at 0.5")
    for (name, kind), logit in zip(rows, logits, strict=True):
        scores = f"macro-F1 {macro_f1(label, logit >= 0):.4f} AUC {auc(label, logit):.4f}"
        print(f"  {name:<32} {kind:<12} {scores}")
    _print_aside(aside)


def _scatter(
    contenders: "Sequence[Contender]",
    labels: dict[str, Any],
    table: pd.DataFrame,
    rows: str,
    title: str,
    path: Any,  # noqa: ANN401
) -> None:
    """Draw scores on held-out rows against those elsewhere, of all that have both."""
    if not labels:
        return
    from src.reporting.charts import plot_scatter
    from src.soups.table import point_name

    (name,) = labels
    known = {one.name: one for one in contenders if not one.unscored}
    columns = (table["model"], table["auc"], table[f"auc {name}"])
    points = {
        point_name(known[model]): (known[model].kind, float(here), float(there))
        for model, here, there in zip(*columns, strict=True)
        if model in known
    }
    print(f"plot: {plot_scatter(points, f'AUC, {rows}', f'AUC, {name}', title, path)}")
