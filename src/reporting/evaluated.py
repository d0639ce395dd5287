"""What `python -m src evaluate` scores: a model or a recipe, as rows with decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import metrics, scores
from src.artifacts.recipes import Member, Recipe
from src.ensemble.align import Aligned, align
from src.ensemble.rule import Rule, Votes, vote
from src.ensemble.stages import pools_of, rule_of, stages_of
from src.errors import UserError
from src.reporting.predicted import Rows, clips_of
from src.reporting.runs import own_recipe

PLAIN = 0.5


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    name: str  # of the model or recipe
    is_recipe: bool  # which of the two
    recipe: Recipe  # its members and rule; a model is a recipe of one member
    aligned: Aligned  # the out-of-fold predictions of its members
    threshold: str  # in words: what it is and where it comes from
    notes: list[str]  # what its scores stand on


def subject_of_model(dataset: str, scheme: str, model: str) -> Subject:
    """Return a model: its own prob, held against the threshold of its own recipe, else 0.5.

    Raises:
        UserError: see `align`.
    """
    aligned = align(dataset, scheme, [model])
    rule = Rule("soft", np.ones(1), np.full(1, PLAIN), PLAIN)
    found = own_recipe(dataset, scheme, model)
    threshold = f"{PLAIN} (no recipe is of this model alone)"
    if found is not None:
        name, recipe = found
        tuned = rule_of(recipe)
        if tuned.voting in ("soft", "logit") and not tuned.curves:
            pool = pools_of(recipe).get(model)
            pools = {} if pool is None else {model: pool}
            aligned = aligned.pooled_as(pools)
            rule = replace(
                rule, threshold=tuned.threshold, by=tuned.by, cuts=tuned.cuts,
                pools=tuple(pools.values()),
            )  # fmt: skip
            how = f", frames pooled by {pools[model]}" if pools else ""
            threshold = _words(rule, f"recipe {name}{how}, fitted on these rows")
        else:
            threshold = f"{PLAIN} (recipe {name} decides on something else: --recipe {name})"
    whole = Recipe(
        dataset, scheme, aligned.folds, aligned.folds_sha256,
        [
            Member(
                model, 1.0, PLAIN, aligned.oof_sha256[model], aligned.checkpoint_sha256[model]
            )
        ],
        stages_of(rule, [model]),
    )  # fmt: skip
    return Subject(model, False, whole, aligned, threshold, _notes(aligned))


def subject_of_recipe(name: str, recipe: Recipe) -> Subject:
    """Return a recipe with the predictions it was tuned on; raises as `align`."""
    models = [member.model for member in recipe.members if member.weight]
    aligned = align(recipe.dataset, recipe.scheme, models).pooled_as(pools_of(recipe))
    rule = rule_of(recipe)
    notes = _notes(aligned)
    cross = recipe.scores.get("cross_fitted")
    honest = "" if cross is None else f"; cross-fitted, its macro-F1 is {cross:.4f}"
    notes.append(f"weights and threshold were fitted on these rows: in-sample{honest}")
    threshold = "the members' own, by hard voting" if rule.voting == "hard" else _words(
        rule, f"recipe {name}"
    )  # fmt: skip
    return Subject(name, True, recipe, aligned, threshold, notes)


def _words(rule: Rule, where: str) -> str:
    cuts = "".join(f", {cut:.4f} for {value}" for value, cut in rule.cuts.items())
    return f"{rule.threshold:.4f}{cuts} ({where})"


def _notes(aligned: Aligned) -> list[str]:
    return [
        f"selected-on: {model} chose its epoch, or what it merges, by its score on these rows, "
        "which flatters it"
        for model in aligned.selected_on
    ]


def check_folds(subject: Subject, folds: Sequence[int] | None) -> list[int]:
    """Return the folds to score: those wanted, or all that are there.

    Raises:
        UserError: a fold without predictions; lists those that have some.
    """
    have = [k for k in subject.recipe.folds if k in subject.aligned.folds]
    for fold in folds or []:
        if fold not in have:
            raise UserError(
                f"--folds {fold}: {subject.name} has predictions of folds "
                f"{', '.join(map(str, have))}"
            )
    return sorted(set(folds)) if folds else have


def own_rows(subject: Subject, folds: Sequence[int] | None = None) -> Rows:
    """Return the out-of-fold predictions of some folds (None: all), decided by the rule."""
    aligned = subject.aligned
    mask = np.isin(aligned.fold, check_folds(subject, folds))
    logits = aligned.logits[mask]
    return _decided(
        subject,
        {model: logits[:, place] for place, model in enumerate(aligned.models)},
        ids=aligned.item_ids[mask],
        label=aligned.label[mask],
        group=aligned.group[mask],
        fold=aligned.fold[mask],
        domain=aligned.domain[mask],
        kind=aligned.kind[mask],
    )


def other_rows(
    subject: Subject, table: pd.DataFrame, logits: Mapping[str, pd.Series]
) -> tuple[Rows, list[str]]:
    """Return rows of another data set, decided by the rule and the threshold carried over.

    Args:
        subject: what predicted them.
        table: `item_id, label, group, domain, kind` of the items; group "" stands for the item
            alone.
        logits: member -> logits by item_id; NaN where an item is unreadable.

    Returns:
        The readable rows, all of fold 0, and the ids of the others.

    Raises:
        UserError: no item is readable.
    """
    ids = table["item_id"].to_numpy(dtype=object)
    columns = {model: series.loc[ids].to_numpy(np.float64) for model, series in logits.items()}
    seen = np.logical_and.reduce([np.isfinite(column) for column in columns.values()])
    lost = ids[~seen].tolist()
    if not seen.any():
        raise UserError(f"none of the {len(ids)} items could be read, the first is {ids[0]!r}")
    table = table.loc[seen]
    group = table["group"].to_numpy(dtype=object)
    # A group's name and an item's id cannot be one: the pair tells them apart.
    own = [f"g {name}" if name else f"i {item}"
           for name, item in zip(group, ids[seen], strict=True)]  # fmt: skip
    rows = _decided(
        subject,
        {model: column[seen] for model, column in columns.items()},
        ids=ids[seen],
        label=table["label"].to_numpy(np.int64),
        group=pd.factorize(np.array(own, dtype=object), sort=True)[0].astype(np.int64),
        fold=np.zeros(int(seen.sum()), dtype=np.int64),
        domain=table["domain"].to_numpy(dtype=object),
        kind=table["kind"].to_numpy(dtype=object),
    )
    return rows, lost


def _decided(
    subject: Subject,
    columns: Mapping[str, NDArray[np.float64]],
    *,
    ids: NDArray[np.object_],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    fold: NDArray[np.int64],
    domain: NDArray[np.object_],
    kind: NDArray[np.object_],
) -> Rows:
    rule = rule_of(subject.recipe)
    n = label.size
    zeros = np.zeros(n)  # a member of weight 0 is not looked at
    logits = np.stack([columns.get(m.model, zeros) for m in subject.recipe.members], axis=1)
    values = {"": None, "kind": kind, "domain": domain}[rule.by]
    votes = vote(rule, logits, values)
    threshold = rule.threshold_of(values, n)
    if rule.voting == "hard":
        threshold = np.full(n, PLAIN)
    logit = _logit(subject, columns, votes)
    clip = clips_of(ids, group, kind)
    return Rows(label, votes.prob, logit, threshold, votes.pred, group, clip, fold, domain, kind)


def _logit(
    subject: Subject, columns: Mapping[str, NDArray[np.float64]], votes: Votes
) -> NDArray[np.float64]:
    """Return a model's own logits, which saturate later than its probs; else log odds of probs."""
    if not subject.is_recipe:
        return columns[subject.name]
    return metrics.log_odds(votes.prob, scores.CLIP)
