"""What could predict under the rules of a competition, kind by kind, from the same rows.

A kind restricts the members: to trained models, to soups, to all of them. Within a kind the member
and its threshold are chosen on some rows and judged on others, as everywhere in tuning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.competition import CompetitionRules, Load, load_of
from src.artifacts.recipes import Member, Recipe
from src.artifacts.runs import has_run, ingredients_of, read_run
from src.bootstrap import MIN_GROUPS, bootstrap_scores
from src.ensemble.align import Aligned
from src.ensemble.crossfit import Candidate
from src.ensemble.search import Search
from src.ensemble.stand_ins import chosen_elsewhere
from src.ensemble.tune import Tuned, tune
from src.metrics import score_of

Tune = Callable[[Aligned], Tuned]  # the whole ladder, as it was asked for
ONE, REFIT, WITHIN, ACROSS = "one model", "refit", "soup within a model", "soup across models"
ENSEMBLE, ELSEWHERE = "ensemble", "from elsewhere"
KINDS = (ONE, REFIT, WITHIN, ACROSS, ENSEMBLE)  # the simplest first
NONE_YET = {
    ONE: "train_folds.py trains one",
    REFIT: "train_folds.py --fold all trains one",
    WITHIN: "python -m src merge makes one of checkpoints of one model",
    ACROSS: "python -m src variants, then python -m src merge make one",
}
BORROWED = (
    "nothing is held out of it: the score is that of its folds' models; where one of these would "
    "predict, it does, for it saw all rows"
)
FLATTERED = "its epoch (or which merge it is) was chosen on these rows, which flatters it"
CLEARLY = 2.0  # standard errors by which the best of several folds must be ahead: one is luck


def kind_of(dataset: str, scheme: str, model: str, folds: Sequence[int]) -> str:
    """Return which kind of thing a member is, by the record of a run of it."""
    there = [fold for fold in folds if has_run(dataset, scheme, model, fold)]
    if not there:
        return ELSEWHERE
    record = read_run(dataset, scheme, model, there[0])
    if not record["merged_from"]:
        return ONE
    merged = [one for one in ingredients_of(record) if not one.get("ingredients")]
    # What the models started from was not trained here, and has no name.
    return WITHIN if len({one["model"] for one in merged if one["model"]}) == 1 else ACROSS


@dataclass(frozen=True)
class Offer:
    """A kind of thing that could predict, and what it is worth."""

    kind: str  # one of `KINDS`
    tuned: Tuned | None = None  # the best of the kind; None where there is nothing of it
    load: Load | None = None  # of what would predict
    broken: tuple[str, ...] = ()  # the rules that it breaks
    lacking: str = ""  # what has to be made first, and how
    note: str = ""  # what its score stands on, or which fold predicts and why
    score: Candidate | None = None  # cross-fitted, and the gain over the kind that stood

    @property
    def fits(self) -> bool:
        """Tell whether it is there and obeys."""
        return self.tuned is not None and not self.broken and not self.lacking

    def who(self) -> str:
        """Return the members and folds that would predict."""
        if self.tuned is None:
            return ""
        runs = self.tuned.recipe.runs()
        models = list(dict.fromkeys(member.model for member, _ in runs))
        folds = list(dict.fromkeys(str(fold) for _, fold in runs))
        name = models[0] if len(models) == 1 else f"{len(models)} members"
        if folds == [paths.ALL]:
            return f"{name}, all rows"
        return f"{name}, fold{'s' * (len(folds) > 1)} {' '.join(sorted(folds))}"


@dataclass(frozen=True)
class Offers:
    """What each kind would be, of members seen as the rules let them be seen.

    Args:
        seen: the members' predictions, of one view where the rules want that.
        rules: what must be obeyed.
        search: metric and seed.
        items: number of test items, for hours; None where it is not known.
    """

    seen: Aligned
    rules: CompetitionRules
    search: Search
    items: int | None = None

    def of_one(self, kind: str) -> Offer:
        """Return the best single model of a kind, with as many of its folds as the rules let."""
        members = [model for model in self.seen.models if self._kind_of(model) == kind]
        if not members:
            return Offer(kind, lacking=f"none: {NONE_YET[kind]}")
        tuned = self._best_of(members)
        offer = self._offer(kind, tuned, tuned.recipe.members)
        offer = self._with_fewer_folds(offer) if offer.broken else offer
        if tuned.recipe.scores["selected_on"]:
            notes = [offer.note] if offer.note else []
            offer = replace(offer, note="; ".join([*notes, FLATTERED]))
        return offer

    def of_refits(self) -> Offer:
        """Return the best model that was trained on every row; its folds' models speak for it."""
        members = [model for model in self.seen.models if self._kind_of(model) == ONE]
        made = {model: sha for model in members if (sha := self._refit_of(model))}
        if not members:
            return Offer(REFIT, lacking=f"none: {NONE_YET[REFIT]}")
        tuned = self._best_of(list(made) or members, by_fold=False)
        member, *others = tuned.recipe.members
        sha256 = member.checkpoint_sha256 | {paths.ALL: made.get(member.model, "")}
        refit = replace(member, folds=[paths.ALL], checkpoint_sha256=sha256)
        offer = replace(self._offer(REFIT, tuned, [refit, *others]), note=BORROWED)
        how = f"train_folds.py --model {member.model} --fold all"
        return offer if made else replace(offer, lacking=f"not trained: {how}")

    def of_all(self, tuned: Tuned, tune_all: Tune) -> Offer:
        """Return the members together, and where that breaks a rule one fold of each, of fewer.

        Args:
            tuned: what tuning chose.
            tune_all: tunes some of the members in the same way.
        """
        whole = self.of_what_was_tuned(tuned)
        if not whole.broken or self.rules.single_model:
            return whole
        offer = self._with_one_fold(whole)
        members = sorted(_with_say(tuned.recipe), key=lambda member: -abs(member.weight))
        while offer.broken and len(members) > 2:
            members.pop()
            offer = self._with_one_fold(self._offer(ENSEMBLE, tuned, members))
        if len(members) < len(_with_say(tuned.recipe)) and not offer.broken:
            fewer = tune_all(only(self.seen, [member.model for member in members]))
            offer = self._with_one_fold(self._offer(ENSEMBLE, fewer, _voters(fewer.recipe)))
        return whole if offer.broken else offer

    def of_what_was_tuned(self, tuned: Tuned) -> Offer:
        """Return all the members that have a say, each with all of its folds."""
        return self._offer(ENSEMBLE, tuned, _voters(tuned.recipe))

    def _kind_of(self, model: str) -> str:
        seen = self.seen
        return kind_of(seen.dataset, seen.scheme, model, seen.folds_of(model))

    def _best_of(self, members: Sequence[str], *, by_fold: bool = True) -> Tuned:
        """Return one of some members; those that break a rule even alone count only if all do."""
        fitting = [model for model in members if not self.breaks_alone(model)]
        members = fitting or members
        rows, chosen = chosen_elsewhere(only(self.seen, members), one_view=not self.rules.tta)
        if not chosen:
            return self._tuned(members, self.seen, by_fold=by_fold)
        honest = self._tuned(members, rows, by_fold=by_fold)
        own = self._tuned([honest.recipe.members[0].model], self.seen, by_fold=by_fold)
        votes, left = honest.winner.votes, honest.recipe.scores["selected_on"]
        recipe = replace(own.recipe, scores=own.recipe.scores | {"selected_on": left})
        return replace(own, recipe=recipe, winner=replace(own.winner, votes=votes))

    def _tuned(self, members: Sequence[str], rows: Aligned, *, by_fold: bool) -> Tuned:
        """Return the best of some members at its threshold, as a recipe in which it alone votes."""
        name = "best-member" if len(members) > 1 else "mean"
        tuned = tune(only(rows, members), names=[name], search=self.search, by_fold=by_fold)
        found = _voters(tuned.recipe)
        on = [model for model in rows.selected_on if model == found[0].model]
        scores = tuned.recipe.scores | {"selected_on": on}
        return replace(tuned, recipe=replace(tuned.recipe, members=found, scores=scores))

    def breaks_alone(self, model: str) -> bool:
        """Tell whether even one fold of a model breaks a rule."""
        member = self.seen.member(model, 1.0, 0.5)
        return bool(self.rules.broken_by(self._load(replace(member, folds=member.folds[:1]))))

    def _load(self, *members: Member) -> Load:
        seen, rules = self.seen, self.rules.as_dict()
        stub = Recipe(seen.dataset, seen.scheme, [], "", [*members], [], rules=rules)
        return load_of(stub, items=self.items)

    def _offer(self, kind: str, tuned: Tuned, members: Sequence[Member]) -> Offer:
        """Return an offer of some members of what was tuned."""
        load = self._load(*members)
        recipe = replace(tuned.recipe, members=[*members], ships=kind, rules=self.rules.as_dict())
        broken = tuple(self.rules.broken_by(load))
        return Offer(kind, replace(tuned, recipe=recipe), load, broken)

    def _with_fewer_folds(self, offer: Offer) -> Offer:
        """Return the offer of one member with as many of its folds as fit, else with one.

        The fold that would predict alone comes first, then the others by number.
        """
        one = self._with_one_fold(offer)
        assert offer.tuned is not None
        assert one.tuned is not None
        member, *others = offer.tuned.recipe.members
        (first,) = one.tuned.recipe.members[0].folds
        order = sorted(member.folds, key=lambda fold: (fold != first, fold))
        for count in range(len(order) - 1, 1, -1):
            folds = sorted(order[:count])
            alone = replace(member, folds=folds)
            fewer = self._offer(offer.kind, offer.tuned, [alone, *others])
            if not fewer.broken:
                said = f"{count} of its {len(order)} folds, as many as the rules let predict"
                return replace(fewer, note="; ".join(filter(None, [said, one.note])))
        return one

    def _with_one_fold(self, offer: Offer) -> Offer:
        """Return the offer with one fold of each member."""
        assert offer.tuned is not None
        members = offer.tuned.recipe.members
        voting = _with_say(offer.tuned.recipe)
        shared = sorted(set.intersection(*({*member.folds} for member in voting)))
        fold, why = self._fold_to_ship(offer.tuned, shared) if shared else (None, "")
        fewer = [
            replace(member, folds=[member.folds[0] if fold is None else fold])
            if member in voting
            else member
            for member in members
        ]
        return replace(self._offer(offer.kind, offer.tuned, fewer), note=why)

    def _fold_to_ship(self, tuned: Tuned, folds: Sequence[Any]) -> tuple[int, str]:
        """Return the fold whose models predict, and why.

        Each fold's models are scored on their own rows alone, and rows differ: only one that is
        ahead of the others by more than chance gives is preferred to the first.
        """
        votes, rows = tuned.winner.votes, self.seen
        if len(folds) == 1 or votes is None:
            return folds[0], ""
        found = {}
        for fold in folds:
            here = rows.fold == fold
            own, rest = (self._score(tuned, part) for part in (here, ~here))
            if own is not None and rest is not None:
                found[fold] = own, rest
        if len(found) < len(folds):
            return folds[0], "the first fold: too few groups to tell the folds apart"
        sign = self.search.metric.sign
        ahead = {
            fold: sign * (own[0] - rest[0]) / np.hypot(own[1], rest[1])
            for fold, (own, rest) in found.items()
        }
        best = max(ahead, key=ahead.__getitem__)
        scores = " ".join(f"{found[fold][0][0]:.4f}" for fold in folds)
        if ahead[best] > CLEARLY:
            return best, f"fold {best} is clearly the best ({scores}, each on its own rows)"
        return folds[0], f"the folds differ by chance alone ({scores}, each on its own rows)"

    def _score(self, tuned: Tuned, part: NDArray[np.bool_]) -> tuple[float, float] | None:
        """Return the cross-fitted score of some rows and its standard error; None of too few."""
        rows, votes, metric = self.seen.take(part), tuned.winner.votes, self.search.metric
        assert votes is not None
        answer = votes.prob[part], votes.pred[part]
        fakes = int(rows.label.sum())
        if rows.n_groups < MIN_GROUPS or metric.undefined(len(rows) - fakes, fakes):
            return None
        seed = self.search.seed
        draws = bootstrap_scores(metric, rows.label, [answer], rows.group, seed=seed)
        return score_of(metric, rows.label, *answer), float(np.nanstd(draws, ddof=1))

    def _refit_of(self, model: str) -> str:
        """Return the SHA-256 of a model's checkpoint of all rows; "" where none is of its folds."""
        seen = self.seen
        names = (seen.dataset, seen.scheme, model)
        if not has_run(*names, paths.ALL):
            return ""
        refit = read_run(*names, paths.ALL)
        folds = seen.folds_of(model)
        runs = [refit, *(read_run(*names, fold) for fold in folds if has_run(*names, fold))]
        same = len({run["config_sha256"] for run in runs}) == 1
        same &= refit["folds_sha256"] == seen.folds_sha256
        return refit["checkpoint_sha256"] if same else ""


def _with_say(recipe: Recipe) -> list[Member]:
    return [member for member in recipe.members if member.weight != 0]


def _voters(recipe: Recipe) -> list[Member]:
    """Return the members with a say, then those that have one in a part's rule alone.

    Of no weight, these load nothing; but without them nobody could tell the cross-fitted score.
    """
    rules = recipe.crossfit.values()
    say = {model for rule in rules for model, weight in rule.weights.items() if weight}
    rest = [one for one in recipe.members if one.weight == 0 and one.model in say]
    return [*_with_say(recipe), *rest]


def only(aligned: Aligned, models: Sequence[str]) -> Aligned:
    """Return the predictions of some of the members: of the items that any of them predicted."""
    places = [aligned.models.index(model) for model in models]
    known = np.asarray((~np.isnan(aligned.logit[:, places])).any(axis=1))
    if not known.all():
        aligned = replace(aligned.take(known), folds=np.unique(aligned.fold[known]).tolist())
    pooled = aligned.pooled
    defaults = tuple(pooled.defaults[place] for place in places) if pooled.defaults else ()
    logits = {name: rows[:, places] for name, rows in pooled.logits.items()}
    return replace(
        aligned,
        models=[*models],
        logit=aligned.logit[:, places],
        oof_sha256={model: aligned.oof_sha256[model] for model in models},
        checkpoint_sha256={model: aligned.checkpoint_sha256[model] for model in models},
        selected_on=[model for model in aligned.selected_on if model in models],
        unsure=[model for model in aligned.unsure if model in models],
        pooled=replace(pooled, defaults=defaults, logits=logits),
    )
