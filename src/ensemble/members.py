"""Which members have finished which folds, and on which of them all meet."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from src import paths
from src.errors import UserError, unknown_name

_OOF_NAME = re.compile(r"fold_(0|[1-9]\d*)\.csv")


@dataclass(frozen=True)
class LeftOut:
    """A finished fold of a model that tuning cannot use, and why."""

    model: str
    fold: int
    reason: str


def finished_folds(dataset: str, scheme: str) -> dict[str, list[int]]:
    """Return model -> folds with an OOF file, for every model that has one; both sorted."""
    home = paths.oof_scheme_dir(dataset, scheme)
    finished: dict[str, list[int]] = {}
    for folder in sorted(home.iterdir()) if home.is_dir() else []:
        names = (_OOF_NAME.fullmatch(path.name) for path in folder.glob("fold_*.csv"))
        folds = sorted(int(name[1]) for name in names if name)
        if folds:
            finished[paths.model_from_slug(folder.name)] = folds
    return dict(sorted(finished.items()))


def choose_members(
    dataset: str, scheme: str, finished: dict[str, list[int]], models: Sequence[str] | None
) -> dict[str, list[int]]:
    """Return the wanted members (None: all that have predictions) and their folds, by name.

    Raises:
        UserError: no predictions at all, an unknown model, one named twice.
    """
    if not finished:
        raise UserError(
            f"{paths.oof_scheme_dir(dataset, scheme)} holds no out-of-fold predictions; make some "
            f"first: python train_folds.py --data {dataset} --model effnet_b0 --fold 0"
        )
    if models is None:
        return finished
    for place, model in enumerate(models):
        if model not in finished:
            hint = f"or train it: python train_folds.py --data {dataset} --model {model}"
            raise unknown_name("model with out-of-fold predictions", model, finished, hint)
        if model in models[:place]:
            raise UserError(f"model {model!r} is named twice; weights are tune's to find")
    return {model: finished[model] for model in sorted(models)}


def check_fold_numbers(
    dataset: str, scheme: str, finished: dict[str, list[int]], all_folds: Iterable[int]
) -> None:
    """Raise a UserError for predictions of a fold that the fold file does not know."""
    for model, folds in finished.items():
        for fold in folds:
            if fold not in all_folds:
                raise UserError(
                    f"{paths.oof_csv(dataset, scheme, model, fold)}: the fold file "
                    f"{paths.folds_csv(dataset, scheme)} has no fold {fold}; delete it, or move "
                    "it to the scheme it was made with"
                )


def shared_folds(finished: dict[str, list[int]]) -> list[int]:
    """Return the folds that all members have finished, sorted; raises UserError for none."""
    shared = sorted(set.intersection(*map(set, finished.values())))
    if not shared:
        have = "; ".join(f"{model} has {_list(folds)}" for model, folds in finished.items())
        raise UserError(
            f"no fold is finished by all {len(finished)} models: {have}. Train the missing folds "
            "(python train_folds.py --model NAME --fold K), or choose with --models"
        )
    return shared


def _list(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def left_out(finished: dict[str, list[int]], used: Sequence[int]) -> list[LeftOut]:
    """Return the finished folds that are not used, each with the members that lack it."""
    return [
        LeftOut(
            model,
            fold,
            "not finished by " + ", ".join(m for m, folds in finished.items() if fold not in folds),
        )
        for model, have in finished.items()
        for fold in have
        if fold not in used
    ]
