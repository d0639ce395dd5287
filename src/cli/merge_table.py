"""The table of `python -m src merge`: ingredients, merges, and the ensemble they stand against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.runs import read_run
from src.cli.common import named_scheme
from src.compute.request import Compute
from src.data.folds.schemes import is_lodo
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.inference.lineage import trained_sets
from src.metrics import auc, macro_f1
from src.reporting.charts import plot_scatter
from src.soups.contenders import (
    Line,
    ensemble_of,
    lines_of,
    mean_prob,
    predict_holdout,
    read_contender,
    read_holdout,
    why_aside,
)  # fmt: skip
from src.soups.plan import MergePlan
from src.soups.table import (
    ENSEMBLE,
    Contender,
    Held,
    TooFewGroupsError,
    as_table,
    by_domain,
    held_rows,
    point_name,
)  # fmt: skip

Trained = tuple[str, paths.FoldName]  # model, fold
LEGEND = """macro_f1: rows of one half, at the threshold (and by the merge, where one was chosen) \
that the other half chose; at_0.5: by the same merges at 0.5; forwards: passes of a net an item"""
FLATTERED = """epoch chosen here: an epoch was chosen by its score on these very rows (selection: \
best), so these scores are flattered"""
LEFT_OUT = """leave one domain out: at_0.5 and auc of what is not marked as chosen are of domains \
that nothing was trained or chosen on; thresholds, and merges marked as chosen, were chosen on the \
other half of the same domain"""


@dataclass(frozen=True)
class Scoring:
    """On what merges are scored, and by what computation."""

    dataset: Dataset  # that their models were trained on
    scheme: str
    table: pd.DataFrame  # the fold file
    compute: Compute
    holdout: str | None = None  # another data set to score on
    input_root: Path | None = None

    def elsewhere(
        self, trained: Sequence[Sequence[Trained]]
    ) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
        """Return labels of the holdout's items, and logits of them: a mean over each list."""
        assert self.holdout is not None
        other = load_dataset(self.holdout, self.input_root)
        home = (self.dataset.name, self.scheme)
        runs = [(name, read_run(*home, name, fold)) for each in trained for name, fold in each]
        known = trained_sets(runs, other, self.input_root)
        holdout = read_holdout(other, known, input_root=self.input_root)
        files = [[paths.checkpoint(*home, *one) for one in each] for each in trained]
        compute = self.compute.for_items(len(holdout))
        logits, readable = predict_holdout(other, holdout, files, compute)
        label = holdout["label"].to_numpy(np.int64)
        return label[readable], [logit[readable] for logit in logits]


def print_scores(plans: Sequence[MergePlan], folds: Sequence[int], on: Scoring) -> None:
    """Print the table of merges on the folds that all of them have; write it and the plots."""
    dataset, scheme = on.dataset, on.scheme
    if not folds and on.holdout is None:
        print("nothing is held out here, so there is nothing to score (--holdout NAME)")
        return
    if not folds:
        _print_refits(plans, on)
        return
    lines, aside = lines_of([plan.name for plan in plans], dataset.name, scheme, folds[0])
    try:
        held, lodo = held_rows(on.table, folds), is_lodo(scheme)
    except TooFewGroupsError as error:
        print(f"{error}: no table")
        if on.holdout is not None:
            found = {one.name: (one.kind, [(one.name, k) for k in folds]) for one in lines}
            _print_elsewhere(found, aside, on)
        return
    contenders, labels = _contenders(lines, held, on)
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
    if on.holdout is not None:
        rows = f"{len(held.label)} {'rows of left-out domains' if lodo else 'held-out rows'}"
        points = _points(contenders, found, on.holdout)
        axes = (f"AUC, {rows}", f"AUC, {on.holdout}")
        print(f"plot: {plot_scatter(points, *axes, title, home / f'{name}.png')}")
    x, y, points = by_domain(held, contenders, lodo=lodo)
    if points:
        print(f"plot: {plot_scatter(points, x, y, title, home / f'{name}_domains.png')}")
    print(f"next: python tune.py --data {dataset.name}{named_scheme(dataset.name, scheme)}")


def _contenders(
    lines: Sequence[Line], held: Held, on: Scoring
) -> tuple[list[Contender], dict[str, NDArray[np.int64]]]:
    """Return what stands in the table, and the labels of another data set by its name, if any."""
    home = (on.dataset.name, on.scheme)
    contenders = [
        read_contender(held, on.table, (*home, one.name), one.kind, one.forwards) for one in lines
    ]
    labels = {}
    if on.holdout is not None:
        label, logits = on.elsewhere([[(one.name, k) for k in held.folds] for one in lines])
        labels[on.holdout] = label
        both = zip(contenders, logits, strict=True)
        contenders = [replace(one, elsewhere=logit) for one, logit in both]
    ingredients = [one for one in contenders if one.kind == "ingredient"]
    if len(ingredients) > 1:
        contenders.append(ensemble_of(ingredients))
    return contenders, labels


def _points(
    contenders: Sequence[Contender], table: pd.DataFrame, name: str
) -> dict[str, tuple[str, float, float]]:
    """Return the AUC on held-out rows and elsewhere, of all that have both."""
    known = {one.name: one for one in contenders if not one.unscored}
    columns = (table["model"], table["auc"], table[f"auc {name}"])
    return {
        point_name(known[model]): (known[model].kind, float(here), float(there))
        for model, here, there in zip(*columns, strict=True)
        if model in known
    }


def _print_legend(contenders: Sequence[Contender], aside: dict[str, str], *, lodo: bool) -> None:
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


def _print_refits(plans: Sequence[MergePlan], on: Scoring) -> None:
    """Print what merges that held nothing out, and their ingredients, are worth elsewhere."""
    found: dict[str, tuple[str, list[Trained]]] = {}
    aside: dict[str, str] = {}
    for plan in plans:
        record = read_run(on.dataset.name, on.scheme, plan.name, paths.ALL)
        for one in record["merged_from"]["ingredients"]:
            why = why_aside(one, (on.dataset.name, on.scheme, one["fold"]))
            if why:
                aside.setdefault(one["name"], why)
            else:
                found.setdefault(one["name"], ("ingredient", [(one["model"], one["fold"])]))
    found |= {plan.name: ("merge", [(plan.name, paths.ALL)]) for plan in plans}
    _print_elsewhere(found, aside, on)


def _print_elsewhere(
    found: Mapping[str, tuple[str, Sequence[Trained]]], aside: dict[str, str], on: Scoring
) -> None:
    """Print what ingredients (first) and merges are worth on another data set, and nothing else."""
    parts = sum(kind == "ingredient" for kind, _ in found.values())
    label, logits = on.elsewhere([runs for _, runs in found.values()])
    rows = [(name, kind) for name, (kind, _) in found.items()]
    if parts > 1:
        rows, logits = [*rows, (ENSEMBLE, "ensemble")], [*logits, mean_prob(logits[:parts])]
    print(f"\n{on.holdout}: {len(label)} items that none of them saw, at 0.5")
    for (name, kind), logit in zip(rows, logits, strict=True):
        scores = f"macro-F1 {macro_f1(label, logit >= 0):.4f} AUC {auc(label, logit):.4f}"
        print(f"  {name:<32} {kind:<12} {scores}")
    _print_aside(aside)
