"""Join the members' out-of-fold predictions by item_id, and say what had to be left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.folds import fold_numbers, read_folds
from src.artifacts.oof import is_flat, read_oof
from src.artifacts.runs import check_oof, has_run, read_run
from src.ensemble.echoes import check_members, find_echoes
from src.ensemble.extra import check_extra_oof, doubtful_extras, is_extra, read_extra_test
from src.ensemble.members import (
    LeftOut,
    check_fold_numbers,
    choose_members,
    finished_folds,
    left_out,
    shared_folds,
)
from src.ensemble.pooled import Pooled, read_pooled, show_everyone
from src.errors import UserError


@dataclass(frozen=True)
class Aligned:
    """What the members predicted for the same items.

    Attributes:
        dataset: data set.
        scheme: fold scheme.
        folds_sha256: SHA-256 of the fold file.
        all_folds: the folds of the scheme.
        folds: the folds used, those every member has finished.
        models: the members, sorted by name.
        oof_sha256: member -> fold (as a string) -> SHA-256 of its OOF file.
        checkpoint_sha256: the same of the checkpoints that made them, where a run's record is.
        item_ids: (n,) str objects, sorted.
        label: (n,) int64, 0/1.
        group: (n,) int64 codes.
        fold: (n,) int64.
        kind: (n,) str objects, `image` or `video`.
        domain: (n,) str objects.
        logits: (n, n_models) float64, finite.
        left_out: finished folds that are not used.
        selected_on: members some of whose folds chose their epoch by the score on these items.
        unsure: members from elsewhere that do not say on which folds they were made.
        echoes: merges that are one of their ingredients, left out: (merge, the other member).
        pooled: the logits under every pooling of frames (or faces), where items have several.
    """

    dataset: str
    scheme: str
    folds_sha256: str
    all_folds: list[int]
    folds: list[int]
    models: list[str]
    oof_sha256: dict[str, dict[str, str]]
    checkpoint_sha256: dict[str, dict[str, str]]
    item_ids: NDArray[np.object_]
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    fold: NDArray[np.int64]
    kind: NDArray[np.object_]
    domain: NDArray[np.object_]
    logits: NDArray[np.float64]
    left_out: list[LeftOut]
    selected_on: list[str]
    unsure: list[str] = field(default_factory=list)
    echoes: list[tuple[str, str]] = field(default_factory=list)
    pooled: Pooled = field(default_factory=Pooled)

    @property
    def n_groups(self) -> int:
        """Return the number of groups among the items."""
        return len(np.unique(self.group))

    def under(self, pool: str) -> "Aligned":
        """Return the same with logits of another pooling of frames; "" is the members' own."""
        return replace(self, logits=self.pooled.logits[pool]) if pool else self

    def pooled_as(self, pools: Mapping[str, str]) -> "Aligned":
        """Return the same with the frames of some members pooled as a recipe says.

        Args:
            pools: model -> name in `POOLING`; others keep their own.
        """
        if not any(model in pools for model in self.models) or not self.pooled.logits:
            return self
        columns = [
            (self.pooled.logits[pools[model]] if model in pools else self.logits)[:, place]
            for place, model in enumerate(self.models)
        ]
        return replace(self, logits=np.stack(columns, axis=1))

    def values(self, by: str) -> NDArray[np.object_]:
        """Return (n,) the `kind` or the `domain` of the items."""
        return {"kind": self.kind, "domain": self.domain}[by]


def align(dataset: str, scheme: str, models: Sequence[str] | None = None) -> Aligned:
    """Read what tuning stands on.

    Args:
        dataset: data set.
        scheme: fold scheme; its fold file must exist.
        models: the members; None takes every model that has OOF.

    Raises:
        UserError: no OOF; an unknown model; no fold that all members have finished; a file that
            `read_oof` refuses; a run made with another fold file; a fold whose logits are all
            equal; two members with equal predictions; more members than items. The message
            names the file and the way out.
    """
    folds_path = paths.folds_csv(dataset, scheme)
    table = read_folds(folds_path)
    folds_sha256 = fingerprint_of(folds_path)
    all_folds = fold_numbers(table)
    finished = choose_members(dataset, scheme, finished_folds(dataset, scheme), models)
    check_fold_numbers(dataset, scheme, finished, all_folds)
    for model, done in finished.items():
        for fold in set(all_folds) - set(done):
            if has_run(dataset, scheme, model, fold):  # its predictions were taken away
                check_oof(read_run(dataset, scheme, model, fold))
    folds = shared_folds(finished)
    items = table[table["fold"].isin(folds)].set_index("item_id")
    logits = np.empty((len(items), len(finished)))
    selected_on, checkpoints = [], {}
    for column, model in enumerate(finished):
        if is_extra(dataset, scheme, model):
            read_extra_test(dataset, scheme, model)  # a half-done import is refused here already
            check_extra_oof(dataset, scheme, model, folds)
        runs = _read_runs(dataset, scheme, model, folds, folds_sha256)
        checkpoints[model] = {str(k): run["checkpoint_sha256"] for k, run in runs.items()}
        if any(run["selection"] == "best" for run in runs.values()):
            selected_on.append(model)
        logits[:, column] = _read_member(dataset, scheme, model, folds, table).loc[items.index]
    echoes: list[tuple[str, str]] = []
    if models is None:
        echoes = find_echoes(dataset, scheme, list(finished), folds, logits)
        gone = {merge for merge, _ in echoes}
        kept = [column for column, model in enumerate(finished) if model not in gone]
        finished = {model: done for model, done in finished.items() if model not in gone}
        logits, selected_on = logits[:, kept], [one for one in selected_on if one not in gone]
    check_members(list(finished), logits)
    pooled, ids = Pooled(), items.index.to_numpy(dtype=object)
    has_clips = bool((items["kind"] == "video").any())
    if has_clips or show_everyone(dataset, scheme, list(finished), folds):
        pooled = read_pooled(dataset, scheme, list(finished), folds, ids, logits)
    return Aligned(
        dataset=dataset,
        scheme=scheme,
        folds_sha256=folds_sha256,
        all_folds=all_folds,
        folds=folds,
        models=list(finished),
        oof_sha256={
            model: {str(k): fingerprint_of(paths.oof_csv(dataset, scheme, model, k)) for k in folds}
            for model in finished
        },
        checkpoint_sha256={model: checkpoints[model] for model in finished},
        item_ids=ids,
        label=items["label"].to_numpy(np.int64),
        group=pd.factorize(items["group"], sort=True)[0].astype(np.int64),
        fold=items["fold"].to_numpy(np.int64),
        kind=items["kind"].to_numpy(dtype=object),
        domain=items["domain"].to_numpy(dtype=object),
        logits=logits,
        left_out=left_out(finished, folds),
        selected_on=selected_on,
        unsure=doubtful_extras(dataset, scheme, list(finished)),
        echoes=echoes,
        pooled=pooled,
    )


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
        path = paths.oof_csv(dataset, scheme, model, fold)
        part = read_oof(path, table, fold).set_index("item_id")["logit"]
        if len(part) > 1 and is_flat(part):
            raise UserError(
                f"{path}: all {len(part)} logits are {float(part.iloc[0])!r} (row 2 to the last): "
                f"{model} learned nothing; train that fold again (--overwrite), or leave the model "
                "out with --models"
            )
        parts.append(part)
    return pd.concat(parts)
