"""The table of `python -m src merge`: ingredients, merges, and the ensemble they stand against."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from src import paths
from src.errors import UserError

if TYPE_CHECKING:
    from src.data.manifest import Dataset
    from src.training.merge_plan import MergePlan
    from src.training.merge_table import Contender, Held

LEGEND = """macro_f1: rows of one half, at the threshold (and by the merge, where one was chosen) \
that the other half chose; at_0.5: by the same merges at 0.5; forwards: passes of a net an item"""


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
    from src.training.merge_table import (
        as_table,
        by_domain,
        ensemble_of,
        held_rows,
        read_contender,
    )

    if not folds and arguments.holdout is None:
        print("nothing is held out here, so there is nothing to score (--holdout NAME)")
        return
    runs = _runs(plans, dataset.name, scheme, folds)
    if not folds:
        _print_elsewhere(runs, dataset, scheme, arguments)
        return
    held = held_rows(table, folds)
    contenders = [
        read_contender(held, table, (dataset.name, scheme, name), kind, _forwards(config))
        for name, kind, config in runs
    ]
    labels: dict[str, Any] = {}
    if arguments.holdout is not None:
        label, logits = _elsewhere(runs, dataset, scheme, folds, arguments)
        labels[arguments.holdout] = label
        contenders = [
            replace(one, elsewhere=logit) for one, logit in zip(contenders, logits, strict=True)
        ]
    ingredients = [one for one in contenders if one.kind == "ingredient"]
    if len(ingredients) > 1:
        contenders.append(ensemble_of(ingredients))
    found = as_table(held, contenders, labels)
    which = "fold" if len(folds) == 1 else "folds"
    print(f"\n{which} {', '.join(map(str, folds))}: {len(held.label)} held-out rows in two halves")
    print(found.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print(LEGEND)
    home = paths.merge_report_dir(dataset.name, scheme)
    name = "_".join(plan.name for plan in plans)[:80]
    from src.artifacts.files import write_csv

    write_csv(home / f"{name}.csv", found)
    print(f"table: {home / f'{name}.csv'}")
    _scatter(held, contenders, labels, found, f"{name}, {dataset.name}", home / f"{name}.png")
    x, y, points = by_domain(held, contenders)
    if points:
        from src.reporting.merges import plot_scatter

        file = home / f"{name}_domains.png"
        print(f"plot: {plot_scatter(points, x, y, f'{name}, {dataset.name}', file)}")
    print(f"next: python tune.py --data {dataset.name}")


def _runs(
    plans: "Sequence[MergePlan]", dataset: str, scheme: str, folds: Sequence[paths.FoldName]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return name, kind and config of every ingredient and merge, each once."""
    from src.training.record import read_record

    fold = folds[0] if folds else paths.ALL
    found: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for plan in plans:
        merged = read_record(paths.run_record(dataset, scheme, plan.name, fold))
        for one in merged["merged_from"]["ingredients"]:
            same = one["dataset"] == dataset and one["scheme"] == scheme and one["fold"] == fold
            if same and "@stage" not in one["name"]:
                record = read_record(paths.run_record(dataset, scheme, one["model"], fold))
                found.setdefault(one["model"], (one["model"], "ingredient", record["config"]))
    for plan in plans:
        merged = read_record(paths.run_record(dataset, scheme, plan.name, fold))
        found[plan.name] = (plan.name, "merge", merged["config"])
    return list(found.values())


def _forwards(config: dict[str, Any]) -> int:
    return 2 if config["tta"] == "flip" else 1


def _elsewhere(
    runs: Sequence[tuple[str, str, Any]],
    dataset: "Dataset",
    scheme: str,
    folds: Sequence[paths.FoldName],
    arguments: Namespace,
) -> tuple[Any, list[Any]]:
    """Return labels of another data set's items, and every run's logits of them."""
    from src.data.layouts import load_dataset
    from src.training import device
    from src.training.merge_holdout import predict_holdout, read_holdout
    from src.training.predict import Compute, default_workers

    _refuse_known(runs, dataset.name, scheme, folds, arguments.holdout)
    other = load_dataset(arguments.holdout, arguments.input_root)
    holdout = read_holdout(other, dataset)
    chip = device.choose_device(arguments.device)
    workers = (
        default_workers(len(holdout.paths)) if arguments.workers is None else arguments.workers
    )
    compute = Compute(chip, device.inference_precision(chip, arguments.precision), workers)
    files = [
        [paths.checkpoint(dataset.name, scheme, name, fold) for fold in folds]
        for name, _, _ in runs
    ]
    logits, readable = predict_holdout(holdout, files, compute)
    return holdout.label[readable], [logit[readable] for logit in logits]


def _refuse_known(
    runs: Sequence[tuple[str, str, Any]],
    dataset: str,
    scheme: str,
    folds: Sequence[paths.FoldName],
    holdout: str,
) -> None:
    """Raise where a model, or an ingredient of one, was trained on the other data set."""
    from src.artifacts.merged import ingredients_of
    from src.training.record import read_record

    for name, fold in ((name, fold) for name, _, _ in runs for fold in folds):
        record = read_record(paths.run_record(dataset, scheme, name, fold))
        for one in ingredients_of(record):
            if one.get("dataset") == holdout:
                raise UserError(
                    f"--holdout {holdout}: {one['name']}, an ingredient of {name}, was trained on "
                    "it: no leaked score is reported"
                )


def _print_elsewhere(
    runs: Sequence[tuple[str, str, Any]], dataset: "Dataset", scheme: str, arguments: Namespace
) -> None:
    """Print what runs that held nothing out are worth on another data set."""
    from src.metrics import auc, macro_f1

    label, logits = _elsewhere(runs, dataset, scheme, [paths.ALL], arguments)
    print(f"\n{arguments.holdout}: {len(label)} items that none of them saw, at 0.5")
    for (name, kind, _), logit in zip(runs, logits, strict=True):
        scores = f"macro-F1 {macro_f1(label, logit >= 0):.4f} AUC {auc(label, logit):.4f}"
        print(f"  {name:<32} {kind:<12} {scores}")


def _scatter(
    held: "Held",
    contenders: "Sequence[Contender]",
    labels: dict[str, Any],
    table: pd.DataFrame,
    title: str,
    path: Any,  # noqa: ANN401
) -> None:
    if not labels:
        return
    from src.reporting.merges import plot_scatter

    (name,) = labels
    kinds = {one.name: one.kind for one in contenders}
    columns = (table["model"], table["auc"], table[f"auc {name}"])
    points = {
        str(model): (kinds[str(model)], float(here), float(there))
        for model, here, there in zip(*columns, strict=True)
    }
    rows_here = f"AUC, {len(held.label)} held-out rows"
    print(f"plot: {plot_scatter(points, rows_here, f'AUC, {name}', title, path)}")
