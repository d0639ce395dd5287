"""The conditions that a recipe meets: items as they are, at levels, and by another scheme's folds.

By another scheme the same members, trained once more, predicted the same items, none of which (nor
what stands in its fold there, such as its cluster or its domain) they had seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import CLUSTERS, read_folds, scheme_names
from src.artifacts.oof import DELIVERY_SEED, WHOLE_LEVEL, is_treatment, read_views_metadata
from src.ensemble.align import Aligned, align, finished_folds
from src.ensemble.crossfit import make_parts
from src.ensemble.extra import is_extra
from src.ensemble.predictions import IntArray, columns_of
from src.ensemble.shift.delivered import command_for, read_delivered
from src.errors import UserError, unknown_name
from src.stratify import stratified_group_folds

ROBUSTNESS = "robustness"  # stands for all levels
CLEAN = "clean"  # the items as they are


class Condition(NamedTuple):
    """Rows of one condition, and which part of the clean rows decides for each."""

    rows: Aligned
    part: IntArray  # (n,) as in `Parts`: a group's rows are of one part, in all conditions


@dataclass(frozen=True)
class AllConditions:
    """All conditions of some members."""

    clean: Condition
    note: str  # how the clean rows are parted, in words
    levels: Mapping[str, Condition] = field(default_factory=dict)  # the same rows at each level
    schemes: Mapping[str, Condition] = field(default_factory=dict)  # rows by other schemes
    seed: int = DELIVERY_SEED  # of the draws of levels that are random

    @property
    def all(self) -> dict[str, Condition]:
        """Return every condition by its name, the clean one first."""
        return {CLEAN: self.clean, **self.levels, **self.schemes}


def read_conditions(
    aligned: Aligned,
    words: Sequence[str],
    levels: Sequence[str] | None = None,
    *,
    seed: int,
    delivered_seed: int = DELIVERY_SEED,
) -> AllConditions:
    """Read what the members of a table predicted under other conditions.

    Args:
        aligned: their predictions of the items as they are.
        words: `robustness`, and names of schemes as `scheme_named` takes them.
        levels: None takes all deliveries that some member has; treatments of real pictures, and
            names of sets, are refused.
        seed: of the parts, as tuning's.
        delivered_seed: of levels that are drawn.

    Raises:
        UserError: too few groups to cross-fit; a member without a level, or that is not trained by
            the folds of a scheme (says what to run); no such scheme.
    """
    parts = make_parts(aligned, seed)
    if parts.part is None:
        raise UserError(f"nothing can be said of other conditions: {parts.note}")
    _check_levels(levels or [])
    clean = Condition(aligned, parts.part)
    schemes = [scheme_named(aligned, word) for word in words if word != ROBUSTNESS]
    found = {name: _by_scheme(clean, name, seed) for name in dict.fromkeys(schemes)}
    at: dict[str, Condition] = {}
    if ROBUSTNESS in words:
        names = _stored_levels(aligned, delivered_seed) if levels is None else levels
        read = read_delivered(aligned, names, delivered_seed)
        if not read.levels:
            raise UserError(
                f"{', '.join(aligned.models)}: of delivered pictures only treatments of real ones "
                f"are predicted (seed {delivered_seed}), which say nothing of deliveries; make "
                f"some: {command_for(aligned, aligned.models[0], delivered_seed, ['card'])}"
            )
        at = {level: Condition(rows, parts.part) for level, rows in read.levels.items()}
    return AllConditions(clean, parts.note, at, found, delivered_seed)


def _check_levels(levels: Sequence[str]) -> None:
    """Raise a UserError for a name that is no single delivery: these all have a strength."""
    for level in levels:
        if is_treatment(level):
            raise UserError(
                f"--levels {level}: a treatment of real pictures is no delivery, and no mean "
                "counts it; python -m src robustness shows what it does"
            )
        if not any(character.isdigit() for character in level):
            raise UserError(
                f"--levels {level}: name single levels, such as jpeg50 blur1; "
                "python -m src robustness --list says what is in a set"
            )


def _stored_levels(aligned: Aligned, seed: int) -> list[str]:
    """Return the deliveries that some member has predicted something of, in their order."""
    found: dict[str, None] = {}
    for model in aligned.models:
        for fold in aligned.folds_of(model):
            names = (aligned.dataset, aligned.scheme, model)
            path = paths.readable(paths.delivered_views(*names, seed, fold))
            if path.is_file():
                found |= dict.fromkeys(read_views_metadata(path).get("levels", []))
    return [level for level in found if not is_treatment(level) and level != WHOLE_LEVEL]


def scheme_named(aligned: Aligned, word: str) -> str:
    """Return the other scheme of a data set that a word names; `clusters` is short for one.

    Raises:
        UserError: none, or several; the scheme of the predictions themselves.
    """
    files = scheme_names(aligned.dataset)
    fit = [name for name in files if word == name or (word == CLUSTERS and name.startswith(word))]
    if len(fit) > 1:
        raise UserError(f"{word!r} may be any of the schemes {', '.join(fit)}: say which")
    if not fit:
        hint = f"python -m src folds --data {aligned.dataset} --scheme {word} makes one"
        raise unknown_name("fold scheme", word, [*files, ROBUSTNESS], hint)
    if fit[0] == aligned.scheme:
        others = ", ".join(name for name in files if name != fit[0]) or "none yet"
        raise UserError(
            f"{word!r} is the scheme that is tuned on: want another one ({others}) or {ROBUSTNESS}"
        )
    return fit[0]


def _by_scheme(clean: Condition, scheme: str, seed: int) -> Condition:
    """Return what the members predicted of their rows by the folds of another scheme.

    Groups are those of the clean rows' scheme, so that all rows of a group are of one part; those
    of which no clean row is known are parted likewise. Items that the clean rows' fold file leaves
    out are left out here.
    """
    aligned = clean.rows
    _check_trained(aligned, scheme)
    rows = align(aligned.dataset, scheme, aligned.models)
    own = columns_of(read_folds(paths.folds_csv(aligned.dataset, aligned.scheme)))
    ids = pd.Index(own["item_id"])
    place = ids.get_indexer(pd.Index(rows.item_id))
    rows, code = rows.take(place >= 0), own["group"][place[place >= 0]]
    clean_code = own["group"][ids.get_indexer(pd.Index(aligned.item_id))]
    group_of = np.full(own["group"].max() + 1, -1)
    part_of = group_of.copy()
    group_of[clean_code], part_of[clean_code] = aligned.group, clean.part
    is_new = group_of[code] < 0
    group = np.where(is_new, aligned.group.max() + 1 + code, group_of[code])
    part = part_of[code]
    if is_new.any():
        names = np.unique(clean.part)
        dealt = stratified_group_folds(rows.label[is_new], group[is_new], names.size, seed)
        part[is_new] = names[dealt]
    return Condition(replace(rows, group=group), part)


def _check_trained(aligned: Aligned, scheme: str) -> None:
    """Raise a UserError where a member has no predictions by a scheme; it says what to run."""
    finished = finished_folds(aligned.dataset, scheme)
    for model in aligned.models:
        if model in finished:
            continue
        others = " ".join(one for one in aligned.models if one in finished)
        leave = f"leave it out (--models {others})" if others else "leave that scheme out"
        names = (aligned.dataset, aligned.scheme, model)
        train = f"python train_folds.py --data {aligned.dataset} --model {model} --scheme {scheme}"
        way_out = f"bring them too (--extra, --scheme {scheme})" if is_extra(*names) else train
        raise UserError(
            f"{model} has no predictions by the folds of {scheme}: {way_out}, or {leave}"
        )
