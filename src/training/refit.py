"""The refit: a model trained on every row. What it borrows from its folds, and when it may."""

import logging

import numpy as np

from src import paths
from src.artifacts.recipes import Recipe
from src.artifacts.runs import has_run, read_run
from src.config import ModelConfig
from src.errors import UserError
from src.training import record

LOG = logging.getLogger("rvf")


def refit_epochs(
    dataset: str, scheme: str, model: str, config: ModelConfig, folds: list[int]
) -> int | list[int] | None:
    """Return after how many epochs a refit stops (of each stage, where there are several).

    None trains all of the config's.

    With `selection: best` a refit has no held-out items to choose by, so it takes the mean best
    epoch of the finished folds, on the schedule that they had. A plateau schedule listened to
    their held-out score; in a refit it listens to the training loss, and says so.

    Args:
        dataset: data set.
        scheme: fold scheme.
        model: name of the model.
        config: its config.
        folds: the folds of the scheme.

    Raises:
        UserError: `selection: best`, and no fold is finished with this config.
    """
    if config.selection != "best":
        return None
    best = {}
    for fold in folds:
        if has_run(dataset, scheme, model, fold):
            found = read_run(dataset, scheme, model, fold)
            if found["config_sha256"] == record.config_sha256(config):
                stages = [int(stage["epochs"]) for stage in found["stages"]]
                best[fold] = stages or [int(found["epoch"])]
    if not best:
        raise UserError(
            f"{model} keeps the epoch that is best on held-out items (selection: best), and a "
            "refit holds nothing out. Train its folds first, and the refit takes their mean best "
            f"epoch: python train_folds.py --model {model} --data {dataset}; or train a variant: "
            "--set selection=last --set patience=null --as NAME"
        )
    means = np.floor(np.mean(list(best.values()), axis=0) + 0.5).astype(int).tolist()
    LOG.info(
        "selection: best: nothing is held out, so the refit stops after %s of %d epochs, the mean "
        "best epoch of fold%s %s",
        " and ".join(map(str, means)), config.optim.epochs, "s" * (len(best) > 1),
        ", ".join(map(str, best)),
    )  # fmt: skip
    if config.optim.schedule == "plateau":
        LOG.info("its plateau schedule listens to the training loss, for nothing is held out")
    return means if len(means) > 1 else means[0]


def check_refits(recipe: Recipe) -> None:
    """Check that the refits of a recipe's members are of what the recipe was tuned on.

    Missing ones are not this function's matter.

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
        for fold in recipe.folds:
            other = read_run(*names, fold) if has_run(*names, fold) else refit
            if other["config_sha256"] != refit["config_sha256"]:
                raise UserError(
                    f"{path}: this refit is of another config than fold {fold} of {member.model}, "
                    f"so the recipe says nothing about it; train it again: {again}"
                )
