"""What `python -m src evaluate` scores: a model or a recipe, as decided rows.

Of them also what is scored apart: groups pooled to one row, domains, manipulations, kinds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.recipes import Recipe
from src.data.items.identities import video_of_frame
from src.ensemble.align import Aligned, align
from src.ensemble.crossfitted import PartRules, part_rules
from src.ensemble.predictions import ALONE, Decided, IntArray, Predictions, columns_of, decide
from src.ensemble.rule import Rule, can_vote, fold_curves_of, pools_of, rule_of, stages_of
from src.ensemble.scales import calibrate_folds
from src.ensemble.shift.delivered import seen_by
from src.ensemble.stand_ins import one_view
from src.errors import UserError
from src.metrics import DEFAULT, eer_cut, log_odds, metric_named, roc
from src.reporting.runs import own_recipe

NO_NAME = "(none)"  # a domain of which nothing is known
# How rows were decided: by what was fitted on others, or on these very ones.
CROSS_FITTED, IN_SAMPLE = "cross-fitted", "in-sample"


class Rows(NamedTuple):
    """Which rows a column of the table is of."""

    data: str  # the data set, with the split where it is not the train items
    how: str = ""  # `CROSS_FITTED` or `IN_SAMPLE` where something was fitted on the data set

    def title(self, own: str, other: str | None) -> str:
        """Return the head of its columns; `own` is the data set that was trained on."""
        if self.data != own:
            is_own = self.data == f"{own} test"
            return f"test items ({own})" if is_own else f"cross-domain ({self.data})"
        name = f"in-domain ({own})" if other else own
        return f"{name}, {self.how}" if self.how else name


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    name: str  # of the model or recipe
    is_recipe: bool  # which of the two
    recipe: Recipe  # its members and rule; a model is a recipe of one member
    aligned: Aligned  # the out-of-fold predictions of its members
    threshold: str  # in words: what it is and where it comes from
    notes: list[str]  # what its scores stand on
    # its rows, decided by what was not fitted on them, and by which thresholds; None where its own
    # rule was not fitted on them either, or nothing was cross-fitted
    crossfitted: Decided | None = None
    cuts: str = ""
    fitted: bool = False  # whether its rule was fitted on these rows
    metric: str = DEFAULT  # what it was fitted for
    tuned: Recipe | None = None  # the recipe whose rule it is, with its scores
    parts: PartRules | None = None  # by which rows were cross-fitted


def subject_of_model(dataset: str, scheme: str, model: str) -> Subject:
    """Return a model: its own prob, held against the threshold of its own recipe, else 0.5.

    Raises:
        UserError: see `align`.
    """
    aligned = align(dataset, scheme, [model])
    rule, threshold = ALONE, f"{ALONE.threshold} (no recipe is of this model alone)"
    crossfitted, cuts, parts = None, "", None
    found = own_recipe(dataset, scheme, model)
    if found is not None:
        name, recipe = found
        tuned = rule_of(recipe)
        plain = not (tuned.curves or tuned.folds or tuned.deliveries)
        if tuned.voting in ("soft", "logit") and plain:
            pool = pools_of(recipe).get(model)
            pools = {} if pool is None else {model: pool}
            aligned = aligned.pooled_as(pools)
            rule = replace(
                rule, threshold=tuned.threshold, by=tuned.by, cuts=tuned.cuts,
                pools=tuple(pools.values()),
            )  # fmt: skip
            how = f", frames pooled by {pools[model]}" if pools else ""
            threshold = _words(rule, f"recipe {name}{how}", recipe.metric, ", fitted on these rows")
            parts = part_rules(recipe, aligned, alone=model)
            if parts is not None:
                parts = parts.at_thresholds(rule)
                crossfitted = replace(parts.decide(aligned), logit=aligned.logit[:, 0])
                cuts = _cuts(parts)
        else:
            why = f"recipe {name} decides on something else: --recipe {name}"
            threshold = f"{ALONE.threshold} ({why})"
    members = [aligned.member(model, 1.0, ALONE.threshold)]
    stages = stages_of(rule, [model])
    folds = aligned.folds
    whole = Recipe(dataset, scheme, folds, aligned.folds_sha256, members, stages)
    notes, fitted = _notes(aligned, [model]), rule is not ALONE
    metric = DEFAULT if found is None else found[1].metric
    source = found[1] if fitted and found else None
    return Subject(
        model, False, whole, aligned, threshold, notes, crossfitted, cuts, fitted, metric, source,
        parts,
    )  # fmt: skip


def subject_of_recipe(name: str, recipe: Recipe) -> Subject:
    """Return a recipe with the predictions it was tuned on; raises as `align`."""
    folds_of = {
        member.model: [int(fold) for fold in member.oof_sha256] for member in recipe.members
    }
    aligned = align(recipe.dataset, recipe.scheme, list(folds_of), folds_of)
    aligned = one_view(aligned) if recipe.one_view else aligned
    aligned = seen_by(recipe, aligned)
    curves = fold_curves_of(recipe)
    fair = aligned  # in whose logits no item's own label has a say
    if curves:
        own = [model for model in curves if model in aligned.models]
        fair, _ = calibrate_folds(aligned, own, int(recipe.search["seed"]))
        aligned = aligned.through(aligned.models, curves)
    rule, parts = rule_of(recipe), part_rules(recipe, fair)
    crossfitted, cuts = None, ""
    if parts is not None:
        given = replace(fair, logit=_columns(recipe, _by_member(fair)))
        crossfitted, cuts = parts.decide(given), _cuts(parts)
    threshold = _words(rule, f"recipe {name}", recipe.metric)
    if rule.voting == "hard":
        threshold, cuts = "the members' own, by hard voting", ""
    said = {member.model for member in recipe.members if member.weight}
    notes = _notes(aligned, said)
    return Subject(
        name, True, recipe, aligned, threshold, notes, crossfitted, cuts, True, recipe.metric,
        recipe, parts,
    )  # fmt: skip


def _cuts(parts: PartRules) -> str:
    """Return the thresholds that were fitted without each part, in words; "" where none was."""
    return parts.words() if parts.metric.decides else ""


def _words(rule: Rule, where: str, metric: str, more: str = "") -> str:
    if not metric_named(metric).decides:
        return f"none was fitted, for {metric} ({where}) wants none: decisions are taken at 0.5"
    where += more
    cuts = "".join(f", {cut:.4f} for {value}" for value, cut in rule.cuts.items())
    return f"{rule.threshold:.4f}{cuts} ({where})"


def _notes(aligned: Aligned, models: Collection[str]) -> list[str]:
    return [
        f"selected-on: {model} chose its epoch, or what it merges, by its score on these rows, "
        "which flatters it"
        for model in aligned.selected_on
        if model in models
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


def own_rows(subject: Subject, folds: Sequence[int] | None = None) -> Decided:
    """Return the out-of-fold predictions of some folds (None: all), decided by the rule.

    In-sample, where the rule was fitted on them. Rows that it cannot decide (`can_vote`) are left
    out.

    Raises:
        UserError: it can decide none of them.
    """
    aligned = subject.aligned
    chosen = check_folds(subject, folds)
    rows = aligned.take(np.isin(aligned.fold, chosen))
    rows = rows.take(can_vote(rule_of(subject.recipe), _columns(subject.recipe, _by_member(rows))))
    if not len(rows):
        raise UserError(
            f"{subject.name}: no item of fold {' '.join(map(str, chosen))} was predicted by all "
            "members, and coefficients (stack) want all of them"
        )
    return _decided(subject, rows, _by_member(rows))


def _by_member(rows: Aligned) -> dict[str, NDArray[np.float64]]:
    return dict(zip(rows.models, rows.logit.T, strict=True))


def honest_rows(subject: Subject) -> Decided:
    """Return all out-of-fold predictions, decided by what was not fitted on them.

    Cross-fitted, or by a rule that was not fitted on them; where it was, and nothing is
    cross-fitted, they are in-sample as `own_rows`.
    """
    return own_rows(subject) if subject.crossfitted is None else subject.crossfitted


def rows_as(subject: Subject, seen: Aligned) -> Decided:
    """Return the rows of `honest_rows` with logits of pictures that came another way.

    Decided by the rules that decide the clean ones, which were fitted to them.

    Args:
        subject: a model or a recipe.
        seen: the same rows, members and poolings as `subject.aligned`.
    """
    seen = seen.pooled_as(pools_of(subject.recipe))
    seen = seen.through(seen.models, fold_curves_of(subject.recipe))
    if subject.parts is None:
        return _decided(subject, seen, _by_member(seen))
    if subject.is_recipe:
        given = replace(seen, logit=_columns(subject.recipe, _by_member(seen)))
        return subject.parts.decide(given)
    return replace(subject.parts.decide(seen), logit=seen.logit[:, 0])


def how_decided(subject: Subject) -> str:
    """Return `CROSS_FITTED` or `IN_SAMPLE` for the honest rows; "" where nothing was fitted."""
    if subject.crossfitted is not None:
        return CROSS_FITTED
    return IN_SAMPLE if subject.fitted else ""


def own_levels(subject: Subject, folds: list[int]) -> dict[Rows, dict[str, Decided]]:
    """Return the levels of a subject's own rows: cross-fitted first, in-sample beside.

    In-sample is left out where it is the same, since nothing was fitted.
    """
    name, rows = subject.recipe.dataset, honest_rows(subject)
    decided = {Rows(name, how_decided(subject)): levels_of(rows, folds=folds)}
    fitted = own_rows(subject)
    same = np.array_equal(rows.pred, fitted.pred) and np.array_equal(rows.prob, fitted.prob)
    if not same:
        decided[Rows(name, IN_SAMPLE)] = levels_of(fitted, folds=folds)
    return decided


def other_rows(
    subject: Subject, table: pd.DataFrame, logits: Mapping[str, pd.Series]
) -> tuple[Decided, list[str]]:
    """Return rows of another data set, decided by the rule and the threshold carried over.

    Args:
        subject: what predicted them.
        table: `item_id, label, group, domain, kind` of the items; see `columns_of`.
        logits: member -> logits by item_id; NaN where an item is unreadable.

    Returns:
        The readable rows, all of fold 0, and the ids of the others.

    Raises:
        UserError: no item is readable.
    """
    ids = table["item_id"].to_numpy(dtype=object)
    columns = {model: series.loc[ids].to_numpy(np.float64) for model, series in logits.items()}
    seen = np.logical_and.reduce([np.isfinite(column) for column in columns.values()])
    if not seen.any():
        raise UserError(f"none of the {len(ids)} items could be read, the first is {ids[0]!r}")
    found = columns_of(table.loc[seen].drop(columns="fold", errors="ignore"))
    rows = Predictions(**found, logit=np.empty((len(found["label"]), 0)))
    members = {model: column[seen] for model, column in columns.items()}
    return _decided(subject, rows, members), ids[~seen].tolist()


def _decided(
    subject: Subject, rows: Predictions, members: Mapping[str, NDArray[np.float64]]
) -> Decided:
    """Decide rows by (n,) logits by member: those of no checkpoint have no say."""
    logit = _columns(subject.recipe, members)
    decided = decide(rule_of(subject.recipe), replace(rows, logit=logit))
    if subject.is_recipe:
        return decided
    return replace(decided, logit=members[subject.name])  # which saturates later than its prob


def _columns(recipe: Recipe, members: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return (n, m) logits in the order of the recipe's members, NaN where there are none."""
    nobody = np.full(len(next(iter(members.values()))), np.nan)
    columns = [members.get(member.model, nobody) for member in recipe.members]
    return np.stack(columns, axis=1)


def clips_of(rows: Predictions) -> IntArray:
    """Return (n,) codes of what counts as one clip: the images of one group in one folder.

    A group may be wider than a video (both people of a face swap, all that look alike), but the
    frames of a video lie in a folder of their own, or are called so (`<video>_frame<number>`). An
    item of kind `video` is a clip by itself.
    """
    names = [
        str(item) if what == "video" else _video_of(str(item))
        for item, what in zip(rows.item_id, rows.kind, strict=True)
    ]
    place = np.unique(np.array(names), return_inverse=True)[1]
    pairs = np.stack([rows.group, place], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _video_of(item_id: str) -> str:
    folder, _, name = item_id.rpartition("/")
    stem = name.rpartition(".")[0] or name
    video = video_of_frame(stem)
    return f"{folder}/{video}" if video else folder


def pool_groups(rows: Decided) -> Decided:
    """Pool items of one clip, label, domain and kind into one row by the mean of their probs.

    A video's frames become a verdict on the video. Reals and fakes of one clip stay apart, and so
    do fakes of several manipulations. The development decisions are not kept.
    """
    keys = [clips_of(rows), rows.label, rows.fold]
    keys += [np.unique(v.astype(str), return_inverse=True)[1] for v in (rows.domain, rows.kind)]
    _, first, unit, size = np.unique(
        np.stack(keys, axis=1), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    unit = unit.reshape(-1)
    prob = np.clip(np.bincount(unit, rows.prob) / size, 0.0, 1.0)
    pooled = replace(rows, dev=None).take(first)
    alone = size == 1
    prob = np.where(alone, pooled.prob, prob)
    logit = np.where(alone, pooled.logit, log_odds(prob))
    pred = np.where(alone, pooled.pred, prob >= pooled.threshold).astype(np.int64)
    return replace(pooled, prob=prob, logit=logit, pred=pred)


def decide_by_others(rows: Decided, development: Decided | None = None) -> Decided:
    """Decide every row at the EER cut of development rows: those given, or the other folds.

    Returns:
        The rows with `dev`; None there where no fold is left, or it lacks a class.
    """
    dev = np.zeros(len(rows), dtype=np.int64)
    for fold in np.unique(rows.fold):
        held = rows.fold == fold
        others = rows.take(~held) if development is None else development
        cut = eer_cut(roc(others.label, others.logit)) if len(others) else np.nan
        if np.isnan(cut):
            return replace(rows, dev=None)
        dev[held] = rows.logit[held] >= cut
    return replace(rows, dev=dev)


def levels_of(
    rows: Decided, *, folds: Sequence[int] | None = None, development: Decided | None = None
) -> dict[str, Decided]:
    """Return rows with `dev` at the levels there are: `item`, and `group` where items pool.

    Args:
        rows: items.
        folds: those to keep once all have been decided (None: all): the rest is development.
        development: items that choose the cuts, instead of the other folds.
    """
    pooled = pool_groups(rows)
    pooled_development = None if development is None else pool_groups(development)
    levels = {"item": decide_by_others(rows, development)}
    if len(pooled) < len(rows):
        levels["group"] = decide_by_others(pooled, pooled_development)
    if folds is None:
        return levels
    return {level: some.take(np.isin(some.fold, folds)) for level, some in levels.items()}


def parts(rows: Predictions, by: str) -> Iterator[tuple[str, NDArray[np.bool_], str]]:
    """Yield value, (n,) mask and a note for every `kind`, `domain` or `manipulation`.

    A manipulation is the domain of fakes; they stand against the reals of that domain, or against
    all reals where it has none.
    """
    names = rows.kind if by == "kind" else rows.domain
    fake = rows.label == 1
    for value in sorted(set(names[fake] if by == "manipulation" else names)):
        mask, note = names == value, ""
        if by == "manipulation":
            own = bool((mask & ~fake).any())
            if not own:
                mask = mask | ~fake
            note = f"against {'its own' if own else 'all'} {int((mask & ~fake).sum())} reals"
        yield value or NO_NAME, mask, note
