"""Join the members' out-of-fold predictions by item_id, every fold that each has finished.

Which members have finished which folds, and which items all predicted; which members say the same:
one model twice, or a merge that is one of its ingredients.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.folds import fold_numbers, read_folds
from src.artifacts.oof import is_flat, read_oof
from src.artifacts.recipes import Member, Recipe
from src.artifacts.runs import check_oof, has_run, oof_file, read_run, was_selected
from src.ensemble.extra import check_extra_oof, doubtful_extras, is_extra, read_extra_test
from src.ensemble.pooling import (
    Pooled,
    pool_table,
    read_plain_views,
    read_pooled,
    show_everyone,
)
from src.ensemble.predictions import Predictions, columns_of
from src.ensemble.rule import fold_curves_of
from src.errors import UserError, unknown_name

SAME = 1 - 1e-7  # correlation of logits (or its opposite) above which two members are one


_OOF_NAME = re.compile(r"fold_(0|[1-9]\d*)\.csv")


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


def check_members(models: list[str], logits: NDArray[np.float64]) -> None:
    """Raise a UserError for members that say the same, or for more members than items (rows)."""
    if len(models) > len(logits):
        raise UserError(
            f"{len(models)} members for {len(logits)} items: nothing can be tuned on fewer items "
            "than members; train more folds, or choose members with --models"
        )
    for model, other in _twins(models, logits):
        rest = " ".join(one for one in models if one != model)
        raise UserError(
            f"the predictions of {model!r} equal those of {other!r} but for their scale: one model "
            f"twice; leave one out: --models {rest}"
        )


def _twins(models: list[str], logits: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    """Yield pairs of members that say the same, but for the scale, of what both predicted."""
    alike = correlations(logits)
    for place, model in enumerate(models):
        for other in range(place):
            if abs(alike[place, other]) > SAME:
                yield model, models[other]


def correlations(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (m, m) correlations of the columns of (n, m), each over the rows that two share.

    NaN for two that share fewer than 3.
    """
    if np.isnan(logits).any():
        return pd.DataFrame(logits).corr(min_periods=3).to_numpy()
    return np.atleast_2d(np.corrcoef(logits.T))


def find_echoes(
    dataset: str, scheme: str, folds_of: Mapping[str, Sequence[int]], logits: NDArray[np.float64]
) -> list[tuple[str, str]]:
    """Return merges that turned out to be another member, such as a greedy soup of one.

    (merge, the member that it is) of each; `folds_of`: model -> its folds; `logits` (n, n_models).
    """
    models = list(folds_of)
    if len(models) > len(logits):
        return []  # refused anyway
    found: dict[str, str] = {}
    for pair in _twins(models, logits):
        if found.keys().isdisjoint(pair):
            names = ((dataset, scheme, one, folds_of[one][0]) for one in pair)
            runs = [read_run(*run) for run in names if has_run(*run)]
            merge = next((run["model"] for run in runs if run["merged_from"]), None)
            if merge is not None:
                found[merge] = pair[1] if merge == pair[0] else pair[0]
    return list(found.items())


@dataclass(frozen=True)
class Aligned(Predictions):
    """What the members predicted of the items, sorted by id: a column of logits a member.

    NaN where a member has not finished the item's fold.
    """

    dataset: str
    scheme: str
    folds_sha256: str  # SHA-256 of the fold file
    all_folds: list[int]  # the folds of the scheme
    folds: list[int]  # the folds whose items are here: those that some member has finished
    models: list[str]  # the members, sorted by name
    oof_sha256: dict[str, dict[str, str]]  # member -> fold (as a string) -> SHA-256 of its OOF file
    # the same of the checkpoints that made them, where a run's record is
    checkpoint_sha256: dict[str, dict[str, str]]
    # members some of whose folds chose their epoch by the score on these items
    selected_on: list[str]
    # members from elsewhere that do not say on which folds they were made
    unsure: list[str] = field(default_factory=list)
    # merges that are one of their ingredients, left out: (merge, the other member)
    echoes: list[tuple[str, str]] = field(default_factory=list)
    # the logits under every pooling of frames (or faces), where items have several
    pooled: Pooled = field(default_factory=Pooled)

    def folds_of(self, model: str) -> list[int]:
        """Return the folds that a member has finished, sorted."""
        return [int(fold) for fold in self.oof_sha256[model]]

    def member(self, model: str, weight: float, threshold: float) -> Member:
        """Return one of the models as a member of a recipe."""
        files = self.oof_sha256[model], self.checkpoint_sha256[model]
        return Member(model, weight, threshold, [*self.folds_of(model)], *files)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return some rows, of every column and every pooling."""
        logits = {pool: logit[rows] for pool, logit in self.pooled.logits.items()}
        return replace(super().take(rows), pooled=replace(self.pooled, logits=logits))

    def under(self, pool: str) -> "Aligned":
        """Return the same with logits of another pooling of frames; "" is the members' own."""
        return replace(self, logit=self.pooled.logits[pool]) if pool else self

    def pooled_as(self, pools: Mapping[str, str]) -> "Aligned":
        """Return the same with the frames of some members (model -> pooling) pooled so."""
        if not any(model in pools for model in self.models) or not self.pooled.logits:
            return self
        columns = [
            (self.pooled.logits[pools[model]] if model in pools else self.logit)[:, place]
            for place, model in enumerate(self.models)
        ]
        return replace(self, logit=np.stack(columns, axis=1))


def align(
    dataset: str,
    scheme: str,
    models: Sequence[str] | None = None,
    folds_of: Mapping[str, Sequence[int]] | None = None,
) -> Aligned:
    """Read what tuning stands on: of the models named, or of every one that has OOF.

    All folds that a model has finished are used, or those of `folds_of` (model -> folds) alone,
    which may lie in a bundle (`paths.readable`).

    Raises:
        UserError: no OOF; an unknown model; a file that `read_oof` refuses; a run made with another
            fold file; a fold whose logits are all equal; two members with equal predictions; more
            members than items. The message names the file and the way out.
    """
    folds_path = paths.readable(paths.folds_csv(dataset, scheme))
    table = read_folds(folds_path)
    folds_sha256 = fingerprint_of(folds_path)
    all_folds = fold_numbers(table)
    finished = _usable_folds(dataset, scheme, models, folds_of, all_folds)
    items = table[table["fold"].isin({k for have in finished.values() for k in have})]
    items = items.set_index("item_id")
    logit = np.empty((len(items), len(finished)))
    selected_on, checkpoints = [], {}
    for column, (model, folds) in enumerate(finished.items()):
        runs = _read_runs(dataset, scheme, model, folds, folds_sha256)
        checkpoints[model] = {str(k): run["checkpoint_sha256"] for k, run in runs.items()}
        if any(was_selected(run) for run in runs.values()):
            selected_on.append(model)
        logit[:, column] = _read_member(dataset, scheme, model, folds, table).reindex(items.index)
    echoes: list[tuple[str, str]] = []
    if models is None:
        echoes = find_echoes(dataset, scheme, finished, logit)
    gone = {merge for merge, _ in echoes}
    logit = logit[:, [model not in gone for model in finished]]
    used = {model: folds for model, folds in finished.items() if model not in gone}
    members = list(used)
    check_members(members, logit)
    pooled, columns = Pooled(), columns_of(items)
    has_clips = bool((items["kind"] == "video").any())
    if has_clips or show_everyone(dataset, scheme, used):
        pooled = read_pooled(dataset, scheme, used, columns["item_id"], logit)
    return Aligned(
        **columns,
        logit=logit,
        dataset=dataset,
        scheme=scheme,
        folds_sha256=folds_sha256,
        all_folds=all_folds,
        folds=sorted({fold for folds in used.values() for fold in folds}),
        models=members,
        oof_sha256={
            model: {str(k): fingerprint_of(oof_path(dataset, scheme, model, k)) for k in folds}
            for model, folds in used.items()
        },
        checkpoint_sha256={model: checkpoints[model] for model in members},
        selected_on=[one for one in selected_on if one not in gone],
        unsure=doubtful_extras(dataset, scheme, members),
        echoes=echoes,
        pooled=pooled,
    )


def _usable_folds(
    dataset: str,
    scheme: str,
    models: Sequence[str] | None,
    folds_of: Mapping[str, Sequence[int]] | None,
    all_folds: Sequence[int],
) -> dict[str, list[int]]:
    """Return member -> the folds that it has finished and that are asked for; raises as `align`."""
    finished = finished_folds(dataset, scheme)
    if folds_of is not None:  # a bundle's files are found by their names
        finished |= {
            model: sorted({*finished.get(model, []), *_there(dataset, scheme, model, folds)})
            for model, folds in folds_of.items()
        }
    finished = choose_members(dataset, scheme, {m: k for m, k in finished.items() if k}, models)
    check_fold_numbers(dataset, scheme, finished, all_folds)
    _check_complete(dataset, scheme, finished, all_folds)
    if folds_of is None:
        return finished
    return {m: [k for k in have if k in folds_of[m]] for m, have in finished.items()}


def oof_of(recipe: Recipe) -> Predictions:
    """Return the rows that a recipe was tuned on, read again; a column a member, also of weight 0.

    NaN where a member did not predict a row; through the recipe's curves of folds, if it has any.
    Files of another root that this one reads from (`paths.readable`) will do.
    """
    table = read_folds(paths.readable(paths.folds_csv(recipe.dataset, recipe.scheme)))
    items = table[table["fold"].isin(recipe.folds)].set_index("item_id")
    logit = np.empty((len(items), len(recipe.members)))
    for column, member in enumerate(recipe.members):
        names = (recipe.dataset, recipe.scheme, member.model)
        folds = [int(fold) for fold in member.oof_sha256]
        plain = read_plain_views(*names, folds) if recipe.one_view else None
        logits = read_logits(*names, folds, table) if plain is None else pool_table(*plain)
        logit[:, column] = logits.reindex(items.index)
    rows = Predictions(**columns_of(items), logit=logit)
    return rows.through([member.model for member in recipe.members], fold_curves_of(recipe))


def read_logits(
    dataset: str, scheme: str, model: str, folds: Sequence[int], table: pd.DataFrame
) -> pd.Series:
    """Return a model's out-of-fold logits by item_id, its files held against the fold file."""
    parts = [read_oof(oof_file(dataset, scheme, model, fold), table, fold) for fold in folds]
    return pd.concat(parts).set_index("item_id")["logit"]


def oof_path(dataset: str, scheme: str, model: str, fold: int) -> Path:
    """Return a fold's out-of-fold CSV, where it is or in a bundle."""
    return paths.readable(paths.oof_csv(dataset, scheme, model, fold))


def _there(dataset: str, scheme: str, model: str, folds: Sequence[int]) -> list[int]:
    return [fold for fold in folds if oof_path(dataset, scheme, model, fold).is_file()]


def _check_complete(
    dataset: str,
    scheme: str,
    finished: Mapping[str, Sequence[int]],
    all_folds: Sequence[int],
) -> None:
    """Refuse runs whose predictions were taken away, and imports that are half done."""
    for model, done in finished.items():
        for fold in set(all_folds) - set(done):
            if has_run(dataset, scheme, model, fold):
                check_oof(read_run(dataset, scheme, model, fold))
        if is_extra(dataset, scheme, model):
            read_extra_test(dataset, scheme, model)
            check_extra_oof(dataset, scheme, model, done)


def _read_runs(
    dataset: str, scheme: str, model: str, folds: Sequence[int], folds_sha256: str
) -> dict[int, dict[str, Any]]:
    """Return the records of a member's runs, where there are any.

    Raises:
        UserError: one was made with another fold file, or did not make the predictions beside it.
    """
    runs = {}
    for fold in folds:
        if not has_run(dataset, scheme, model, fold):
            continue
        record = read_run(dataset, scheme, model, fold)
        if record["folds_sha256"] != folds_sha256:
            raise UserError(
                f"{paths.run_record(dataset, scheme, model, fold)}: this run was made with another "
                f"version of {paths.folds_csv(dataset, scheme)}; train it again (--overwrite), or "
                "leave the model out with --models"
            )
        check_oof(record)
        runs[fold] = record
    return runs


def _read_member(
    dataset: str, scheme: str, model: str, folds: Sequence[int], table: pd.DataFrame
) -> pd.Series:
    parts = []
    for fold in folds:
        path = oof_path(dataset, scheme, model, fold)
        part = read_oof(path, table, fold).set_index("item_id")["logit"]
        if len(part) > 1 and is_flat(part):
            raise UserError(
                f"{path}: all {len(part)} logits are {float(part.iloc[0])!r} (row 2 to the last): "
                f"{model} learned nothing; train that fold again (--overwrite), or leave the model "
                "out with --models"
            )
        parts.append(part)
    return pd.concat(parts)
