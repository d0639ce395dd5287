"""From models and folds to runs: which rows each trains on, and for how long.

A refit, which trains on every row, borrows its epochs from the folds.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import fold_numbers
from src.artifacts.recipes import Recipe
from src.artifacts.runs import has_run, read_run
from src.compute.budget import Budget
from src.config import ModelConfig, read_model
from src.data.folds.scan import scan_items
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.texts import Texts
from src.training.job import Job, Options, config_sha256, job_table, stamped
from src.training.pseudo import PseudoLabels

LOG = logging.getLogger("rvf")


class Length(NamedTuple):
    """What says how long a run is: see `Job`."""

    budget: Budget | None
    stop_after: int | list[int] | None = None
    paces: list[float] | None = None


def plan_jobs(
    models: Sequence[str],
    dataset: Dataset,
    scheme: str,
    folds: pd.DataFrame,
    wanted: Sequence[paths.FoldName],
    options: Options,
    budget: Budget | None = None,
) -> Iterator[Job]:
    """Return the runs of some models on the wanted folds of a fold file, model by model.

    They share the `budget`, where there is one; a refit makes the epochs that its folds made.

    What would refuse a whole model is found out here and now, a fold's rows only at its turn.

    Raises:
        UserError: see `refit_epochs` and `PseudoLabels.add`.
    """
    table = job_table(stamped(dataset)[: len(dataset.train)], folds)
    plans: list[tuple[str, ModelConfig, Length, PseudoLabels | None]] = []
    siblings: Sequence[str] = ()
    for model in models:
        config, labeller, refit = read_model(model), None, Length(budget)
        if config.pseudo is not None:
            labeller = PseudoLabels(model, config.pseudo, dataset, scheme)
            labeller.check()
            siblings = siblings or _readable_test_paths(dataset)
        if paths.ALL in wanted:
            names = (dataset.name, scheme, model)
            numbers = fold_numbers(folds)
            trained = _trained(*names, config, numbers)
            if budget is not None and trained:
                LOG.warning(
                    "%s does not count for fold all of %s: it makes as many epochs as the folds "
                    "that are finished (%s), however long that takes",
                    budget.flag, model, ", ".join(map(str, trained)),
                )  # fmt: skip
            refit = Length(
                None if trained else budget,
                refit_epochs(*names, config, numbers),
                refit_paces(*names, config, numbers),
            )
        plans.append((model, config, refit, labeller))

    def jobs() -> Iterator[Job]:
        for model, config, refit, labeller in plans:
            for fold in wanted:
                rows, source = (table, None) if labeller is None else labeller.add(table, fold)
                length = refit if fold == paths.ALL else Length(budget)
                yield Job(
                    model, config, dataset.name, scheme, fold, dataset.root, rows, options,
                    pseudo=source, siblings=siblings if labeller is not None else (),
                    masks=dataset.masks, **length._asdict(),
                )  # fmt: skip

    return jobs()


def _readable_test_paths(dataset: Dataset) -> Texts:
    """Return the test items that some fold may be given pseudo-labels of."""
    scan = scan_items(dataset)  # remembered since the folds were made
    good = (scan["error"] == "") & (scan["split"] == "test")
    return Texts(dataset.items["path"][good.to_numpy()])


def refit_epochs(
    dataset: str, scheme: str, model: str, config: ModelConfig, folds: list[int]
) -> int | list[int] | None:
    """Return after how many epochs a refit stops (of each stage, where there are several).

    None trains all of the config's. Where held-out items steer the folds (`selection: best`, a
    patience), a refit has none to be steered by, so it takes the mean number of epochs that the
    finished folds kept, on the schedule that they had. A plateau schedule listened to their
    held-out score; in a refit it listens to the training loss, and says so.

    Raises:
        UserError: held-out items steer the folds, and none is finished with this config.
    """
    if not config.is_steered:
        return None
    best = {}
    for fold, found in _trained(dataset, scheme, model, config, folds).items():
        stages = [int(stage["epochs"]) for stage in found["stages"]]
        best[fold] = stages or [int(found["epoch"])]
    if not best:
        raise UserError(
            f"{model} is steered by held-out items (selection: best, or patience), and a refit "
            "holds nothing out. Train its folds first, and the refit takes the mean of the epochs "
            f"that they kept: python train_folds.py --model {model} --data {dataset}; or train a "
            "variant: --set selection=last --set patience=null --as NAME"
        )
    means = np.floor(np.mean(list(best.values()), axis=0) + 0.5).astype(int).tolist()
    LOG.info(
        "nothing is held out, so the refit stops after %s of %d epochs, the mean that held-out "
        "items kept of fold%s %s",
        " and ".join(map(str, means)), config.optim.epochs, "s" * (len(best) > 1),
        ", ".join(map(str, best)),
    )  # fmt: skip
    if config.optim.schedule == "plateau":
        LOG.info("its plateau schedule listens to the training loss, for nothing is held out")
    return means if len(means) > 1 else means[0]


def refit_paces(
    dataset: str, scheme: str, model: str, config: ModelConfig, folds: list[int]
) -> list[float] | None:
    """Return the pace of each stage of a refit (`Run.pace`), so that it makes its folds' epochs.

    Of folds of several lengths their mean. None where they made the config's, or none is finished.
    """
    trained = _trained(dataset, scheme, model, config, folds).values()
    made = [[1 / stage["pace"] for stage in found["stages"]] for found in trained]
    means = np.mean([one for one in made if one], axis=0).tolist() if any(made) else []
    if all(mean == 1 for mean in means):
        return None
    LOG.info(
        "the refit makes as many epochs as its folds did in --minutes: %s times the config's",
        " and ".join(f"{mean:.2f}" for mean in means),
    )  # fmt: skip
    return [1 / mean for mean in means]


def _trained(
    dataset: str, scheme: str, model: str, config: ModelConfig, folds: list[int]
) -> dict[int, dict[str, Any]]:
    """Return the records of the folds that are finished with this config."""
    names = (dataset, scheme, model)
    found = {fold: read_run(*names, fold) for fold in folds if has_run(*names, fold)}
    wanted = config_sha256(config)
    return {fold: one for fold, one in found.items() if one["config_sha256"] == wanted}


def check_refits(recipe: Recipe) -> None:
    """Check that the refits of a recipe's members, where there are any, fit what it was tuned on.

    Raises:
        UserError: a refit is of another config or fold file than the member's folds.
    """
    for member in recipe.members:
        names = (recipe.dataset, recipe.scheme, member.model)
        path = paths.run_record(*names, paths.ALL)
        if member.weight == 0 or not has_run(*names, paths.ALL):
            continue
        refit = read_run(*names, paths.ALL)
        again = (
            f"python train_folds.py --model {member.model} --fold all --data {recipe.dataset} "
            "--overwrite"
        )
        if refit["folds_sha256"] != recipe.folds_sha256:
            raise UserError(f"{path}: the fold file has changed since; train it again: {again}")
        for fold in member.folds:
            other = read_run(*names, fold) if has_run(*names, fold) else refit
            if other["config_sha256"] != refit["config_sha256"]:
                raise UserError(
                    f"{path}: this refit is of another config than fold {fold} of {member.model}, "
                    f"so the recipe says nothing about it; train it again: {again}"
                )
