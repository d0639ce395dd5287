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

Trained = tuple[str, paths.FoldName]  # model, fold
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
    if not folds:
        _print_elsewhere(plans, dataset, scheme, arguments)
        return
    runs = _runs(plans, dataset.name, scheme, folds[0])
    held = held_rows(table, folds)
    contenders = [
        read_contender(held, table, (dataset.name, scheme, name), kind, _forwards(config))
        for name, kind, config in runs
    ]
    labels: dict[str, Any] = {}
    if arguments.holdout is not None:
        trained = [[(name, fold) for fold in folds] for name, _, _ in runs]
        label, logits = _elsewhere(trained, dataset, scheme, arguments)
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
    plans: "Sequence[MergePlan]", dataset: str, scheme: str, fold: paths.FoldName
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return name, kind and config of every ingredient and merge, each once."""
    from src.training.record import read_record

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
    trained: "Sequence[Sequence[Trained]]", dataset: "Dataset", scheme: str, arguments: Namespace
) -> tuple[Any, list[Any]]:
    """Return labels of another data set's items, and logits of them: a mean over each list."""
    from src.data.layouts import load_dataset
    from src.training import device
    from src.training.merge_holdout import predict_holdout, read_holdout
    from src.training.predict import Compute, default_workers

    _refuse_known([one for each in trained for one in each], dataset.name, scheme, arguments)
    other = load_dataset(arguments.holdout, arguments.input_root)
    holdout = read_holdout(other, dataset)
    chip = device.choose_device(arguments.device)
    workers = (
        default_workers(len(holdout.paths)) if arguments.workers is None else arguments.workers
    )
    compute = Compute(chip, device.inference_precision(chip, arguments.precision), workers)
    files = [[paths.checkpoint(dataset.name, scheme, *one) for one in each] for each in trained]
    logits, readable = predict_holdout(holdout, files, compute)
    return holdout.label[readable], [logit[readable] for logit in logits]


def _refuse_known(
    trained: "Sequence[Trained]", dataset: str, scheme: str, arguments: Namespace
) -> None:
    """Raise where a model, or an ingredient of one, was trained on the other data set."""
    from src.artifacts.merged import ingredients_of
    from src.training.record import read_record

    for name, fold in trained:
        record = read_record(paths.run_record(dataset, scheme, name, fold))
        for one in ingredients_of(record):
            if one.get("dataset") == arguments.holdout:
                raise UserError(
                    f"--holdout {arguments.holdout}: {one['name']}, an ingredient of {name}, was "
                    "trained on it: no leaked score is reported"
                )


def _print_elsewhere(
    plans: "Sequence[MergePlan]", dataset: "Dataset", scheme: str, arguments: Namespace
) -> None:
    """Print what merges that held nothing out, and their ingredients, are worth elsewhere."""
    from src.metrics import auc, log_odds, macro_f1, sigmoid
    from src.training.merge_table import EDGE, ENSEMBLE
    from src.training.record import read_record

    found: dict[str, tuple[str, Trained]] = {}
    for plan in plans:
        record = read_record(paths.run_record(dataset.name, scheme, plan.name, paths.ALL))
        for one in record["merged_from"]["ingredients"]:
            if (one["dataset"], one["scheme"]) == (dataset.name, scheme) and (
                "@stage" not in one["name"]
            ):
                found.setdefault(one["name"], ("ingredient", (one["model"], one["fold"])))
    parts = len(found)
    found |= {plan.name: ("merge", (plan.name, paths.ALL)) for plan in plans}
    label, logits = _elsewhere([[one] for _, one in found.values()], dataset, scheme, arguments)
    rows = [(name, kind) for name, (kind, _) in found.items()]
    if parts > 1:
        mean = sum(sigmoid(logit) for logit in logits[:parts]) / parts
        rows, logits = [*rows, (ENSEMBLE, "ensemble")], [*logits, log_odds(mean, EDGE)]
    print(f"\n{arguments.holdout}: {len(label)} items that none of them saw, at 0.5")
    for (name, kind), logit in zip(rows, logits, strict=True):
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
