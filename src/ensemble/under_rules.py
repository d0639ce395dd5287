"""Which kind of thing predicts under the rules of a competition, and what the rules cost.

Kinds that obey challenge each other by the one-standard-error rule of all tuning, the simplest
first: a soup has to beat the single model by more than luck gives. A refit is scored by its folds'
models, so no score can prefer it; but it saw all rows, and where it was made it takes their place.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.artifacts.competition import CompetitionRules
from src.artifacts.recipes import Member
from src.bootstrap import MIN_GROUPS, bootstrap_scores, interval
from src.ensemble.align import Aligned
from src.ensemble.crossfit import Candidate, can_weigh, judge
from src.ensemble.offers import (
    ACROSS,
    ENSEMBLE,
    ONE,
    REFIT,
    WITHIN,
    Offer,
    Offers,
    Tune,
    only,
)
from src.ensemble.search import Search
from src.ensemble.stand_ins import one_view
from src.ensemble.tune import Tuned
from src.errors import UserError
from src.metrics import Metric, score_of
from src.paths import FoldName

Ask = Callable[[Aligned], Offers]  # what each kind would be, of some members and items


@dataclass(frozen=True)
class Price:
    """What the rules cost: the free ensemble's cross-fitted score against that of what obeys."""

    free: float
    obeying: float
    cost: float  # positive where the free one is better, whichever metric it is
    interval: tuple[float, float] | None = None  # 95 %, paired, by group
    error: float | None = None  # standard error, likewise


@dataclass(frozen=True)
class Ruled:
    """What the rules let predict."""

    rules: CompetitionRules
    metric: Metric
    offers: list[Offer]  # one of each kind, the simplest first
    chosen: Offer | None  # None where nothing obeys
    price: Price | None  # None where nothing was chosen, or nothing could be cross-fitted
    note: str = ""  # on which items, where members have finished different folds
    # the chosen one with its score on all items of its own, where others have not predicted them
    own: Offer | None = None

    def tuned(self) -> Tuned:
        """Return what predicts, with the table of kinds in its recipe.

        Raises:
            UserError: nothing obeys; names what comes nearest, and what it is worth.
        """
        if self.chosen is None or self.chosen.tuned is None:
            raise self._refusal()
        recipe, best = self.chosen.tuned.recipe, (self.own or self.chosen).score
        scores = {
            **recipe.scores,
            **{key: getattr(best, key) for key in recipe.scores if hasattr(best, key)},
            "kinds": [_as_dict(offer) for offer in self.offers],
            "price": None if self.price is None else asdict(self.price),
        }
        return replace(self.chosen.tuned, recipe=replace(recipe, scores=scores))

    def _refusal(self) -> UserError:
        text = f"nothing that is trained obeys the rules ({self.rules})"
        there = [offer for offer in self.offers if offer.tuned is not None and not offer.lacking]
        nearest = min(there, key=lambda offer: len(offer.broken), default=None)
        if nearest is None or nearest.score is None:
            return UserError(f"{text}: all predictions came from elsewhere (--extra)")
        worth, free = nearest.score.cross_fitted, self.offers[-1].score
        words = "" if worth is None else f", {self.metric.name} {worth:.4f}"
        if nearest.kind != ENSEMBLE and free is not None and free.cross_fitted is not None:
            words += f" where all members together have {free.cross_fitted:.4f}"
        return UserError(
            f"{text}. The nearest is {nearest.kind} ({nearest.who()}{words}), which breaks "
            f"{', '.join(nearest.broken)}: train what fits (python -m src models lists sizes), or "
            "correct the rules (dataset.yaml, or tune.py --rules)"
        )


def under_rules(
    aligned: Aligned,
    free: Tuned,
    rules: CompetitionRules,
    tune_all: Tune,
    search: Search,
    *,
    items: int | None = None,
) -> Ruled:
    """Choose what predicts under rules, and say what each kind of it is worth.

    Args:
        aligned: the members' predictions.
        free: what tuning chose of them without rules.
        rules: what must be obeyed.
        tune_all: tunes an ensemble as `free` was.
        search: metric and seed.
        items: number of test items, for hours; None where it is not known.

    Where members have finished different folds, the items that all predicted tell them apart (where
    there are none, the member with the most items is taken); what predicts is then fitted and
    scored on all items of its own.

    Raises:
        UserError: stored views are gone that the score of a single view wants.
    """
    ask = partial(Offers, rules=rules, search=search, items=items)
    if aligned.complete.all():
        return _compared(aligned, free, ask, tune_all)
    whole = _as_tuned(aligned, free, ask, tune_all)
    shared = can_weigh(aligned)
    rows, note = _on_shared(aligned) if shared else _on_most(aligned, ask)
    found = _compared(rows, tune_all(rows), ask, tune_all)
    best = found.chosen if whole is None else whole
    if best is None or best.tuned is None:
        return replace(found, note=note, price=None)
    if whole is None:
        best = _on_own_rows(best, aligned, ask, tune_all)
    shown = [best if whole else replace(best, score=one.score) for one in found.offers]
    offers = [
        one if one.kind != best.kind else own for one, own in zip(found.offers, shown, strict=True)
    ]
    chosen = next(one for one in offers if one.kind == best.kind)
    note += _line_on_own(best, len(rows), search.metric)
    price = found.price if shared and whole is None else None
    return replace(found, offers=offers, chosen=chosen, own=best, price=price, note=note)


def _as_tuned(aligned: Aligned, free: Tuned, ask: Ask, tune_all: Tune) -> Offer | None:
    """Return what tuning chose of members of different folds, where the rules forbid none of it."""
    seen = _seen(aligned, ask)
    offer = ask(seen).of_what_was_tuned(free if seen is aligned else tune_all(seen))
    if not offer.fits or len(_runs(offer)) < 2:
        return None
    return replace(offer, score=_judged([offer], seen, ask(seen).search)[0])


def _on_shared(aligned: Aligned) -> tuple[Aligned, str]:
    """Return the items that all members predicted, and a line that says so."""
    rows = _some(aligned, aligned.complete)
    return rows, f"compared on the {len(rows)} items that all members predicted"


def _on_most(aligned: Aligned, ask: Ask) -> tuple[Aligned, str]:
    """Return the items of the member that has most, with what else predicted them, and a line.

    A member that breaks a rule even alone is passed over, unless all do.
    """
    offers = ask(_seen(aligned, ask))
    able = [m for m in aligned.models if not offers.breaks_alone(m)] or aligned.models
    counts = dict(zip(aligned.models, (~np.isnan(aligned.logit)).sum(axis=0), strict=True))
    most = max(able, key=lambda model: counts[model])
    folds = {*aligned.folds_of(most)}
    models = [m for m in aligned.models if folds <= {*aligned.folds_of(m)}]
    left = [f"{m} ({counts[m]})" for m in aligned.models if m not in models]
    rows = only(aligned, models)
    return _some(rows, np.isin(rows.fold, [*folds])), (
        f"the {len(aligned.models)} members share no items of both classes, so nothing compares "
        f"them on the same ones: {most} speaks for them, having the most ({counts[most]}); left "
        f"out unseen are {', '.join(left)}; train the same folds of all to compare them"
    )


def _some(aligned: Aligned, rows: NDArray[np.bool_]) -> Aligned:
    return replace(aligned.take(rows), folds=np.unique(aligned.fold[rows]).tolist())


def _on_own_rows(best: Offer, aligned: Aligned, ask: Ask, tune_all: Tune) -> Offer:
    """Return an offer fitted and scored on all items of its members."""
    models = list(dict.fromkeys(member.model for member, _ in _runs(best)))
    seen = _seen(only(aligned, models), ask)
    if best.tuned is not None and len(seen) == best.tuned.recipe.scores["rows"]:
        return best
    kinds = ask(seen)
    if best.kind == ENSEMBLE:
        offer = kinds.of_all(tune_all(seen), tune_all)
    else:
        offer = kinds.of_refits() if best.kind == REFIT else kinds.of_one(best.kind)
    return replace(offer, score=_judged([offer], seen, kinds.search)[0]) if offer.fits else best


def _line_on_own(best: Offer, compared: int, metric: Metric) -> str:
    if best.tuned is None or best.score is None or best.score.cross_fitted is None:
        return ""
    rows = best.tuned.recipe.scores["rows"]
    score = f"{metric.name} {best.score.cross_fitted:.4f} cross-fitted"
    return f"; {best.who()} is fitted on all {rows} of its own: {score}" if rows > compared else ""


def _seen(aligned: Aligned, ask: Ask) -> Aligned:
    """Return the members as the rules let them be seen."""
    return aligned if ask(aligned).rules.tta else one_view(aligned)


def _compared(aligned: Aligned, free: Tuned, ask: Ask, tune_all: Tune) -> Ruled:
    """Let the kinds challenge each other on items that all members predicted."""
    seen = _seen(aligned, ask)
    together = free if seen is aligned else tune_all(seen)
    kinds = ask(seen)
    rules, search = kinds.rules, kinds.search
    offers = [
        kinds.of_one(ONE), kinds.of_refits(), kinds.of_one(WITHIN), kinds.of_one(ACROSS),
        kinds.of_all(together, tune_all),
    ]  # fmt: skip
    offers = _scored(offers, seen, search)
    taken = [offer for offer in offers if offer.score is not None and offer.score.taken]
    chosen = taken[-1] if taken else None
    if chosen is not None and chosen.kind == ONE and _is_refit_of(offers[1], chosen):
        chosen = offers[1] = replace(offers[1], score=chosen.score)
    several = _runs(offers[-1])
    if offers[-1].fits and len(several) > 1 and several == together.recipe.runs():
        chosen = offers[-1]  # the rules forbid nothing of what tuning chose
    price = None if chosen is None else _price(free, chosen, aligned, search)
    return Ruled(rules, search.metric, offers, chosen, price)


def _is_refit_of(refit: Offer, one: Offer) -> bool:
    """Tell whether a refit that is there and obeys is of the very model that would predict.

    Where its folds' models had to be calibrated each by itself, nothing is known of its scale.
    """
    models = [[member.model for member, _ in _runs(offer)] for offer in (refit, one)]
    stages = [] if one.tuned is None else [stage["name"] for stage in one.tuned.recipe.stages]
    return refit.fits and models[0] == models[1] and "fold_calibration" not in stages


def _scored(offers: Sequence[Offer], rows: Aligned, search: Search) -> list[Offer]:
    """Let the offers that fit challenge each other; the others are scored for comparison."""
    fitting = [offer for offer in offers if offer.fits]
    scores = dict(zip([one.kind for one in fitting], _judged(fitting, rows, search), strict=True))
    for offer in offers:
        if offer.tuned is not None and not offer.fits:
            same = next((scores[one.kind] for one in fitting if _say_the_same(one, offer)), None)
            alone = same or _judged([offer], rows, search)[0]
            shown = replace(alone, name=offer.kind, over=None, gain=None, gain_se=None)
            scores[offer.kind] = replace(shown, taken=False)
    return [replace(offer, score=scores.get(offer.kind)) for offer in offers]


def _judged(offers: Sequence[Offer], rows: Aligned, search: Search) -> list[Candidate]:
    tried = [replace(one.tuned.winner, name=one.kind) for one in offers if one.tuned is not None]
    return judge(tried, rows, search, first=0) if tried else []


def _say_the_same(one: Offer, other: Offer) -> bool:
    """Tell whether two offers have the same cross-fitted answers, as a model and its refit do."""
    votes = [each.tuned.winner.votes for each in (one, other) if each.tuned is not None]
    answers = [each for each in votes if each is not None]
    return len(answers) == 2 and all(map(np.array_equal, *answers))


def _runs(offer: Offer) -> list[tuple[Member, FoldName]]:
    return [] if offer.tuned is None else offer.tuned.recipe.runs()


def _price(free: Tuned, chosen: Offer, rows: Aligned, search: Search) -> Price | None:
    """Return what the rules cost, on the same rows and the same draws of groups."""
    votes = [tuned.winner.votes for tuned in (free, chosen.tuned) if tuned is not None]
    answers = [(each.prob, each.pred) for each in votes if each is not None]
    if len(answers) < 2:
        return None
    metric = search.metric
    free_score, own_score = (score_of(metric, rows.label, *answer) for answer in answers)
    cost = metric.sign * (free_score - own_score)
    if rows.n_groups < MIN_GROUPS:
        return Price(free_score, own_score, cost)
    draws = bootstrap_scores(metric, rows.label, answers, rows.group, seed=search.seed)
    costs = metric.sign * (draws[:, 0] - draws[:, 1])
    return Price(free_score, own_score, cost, interval(costs), float(np.nanstd(costs, ddof=1)))


def _as_dict(offer: Offer) -> dict[str, Any]:
    """Return an offer as a recipe keeps it."""
    return {
        "kind": offer.kind,
        "who": offer.who(),
        "load": None if offer.load is None else asdict(offer.load),
        "broken": list(offer.broken),
        "lacking": offer.lacking,
        "note": offer.note,
        "score": None if offer.score is None else asdict(offer.score),
    }
