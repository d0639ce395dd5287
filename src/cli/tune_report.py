"""What `tune.py` prints: members, how alike they are, candidates, the verdict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from src.artifacts.competition import in_millions
from src.artifacts.label_names import read_label_names
from src.artifacts.runs import has_run, read_run
from src.cli.common import print_table
from src.ensemble.align import Aligned, correlations
from src.ensemble.offers import ONE, Offer
from src.ensemble.predictions import ALONE, fit_threshold
from src.ensemble.shift.chosen import Shifted
from src.ensemble.shift.compare import WORST, Worth
from src.ensemble.shift.conditions import CLEAN
from src.ensemble.tune import Candidate, Tuned
from src.ensemble.under_rules import Price, Ruled
from src.metrics import Metric, auc, metric_named, score_of, sigmoid

MOST_MEMBERS = 8  # of which all pairs are shown
UNEVEN = 1.2  # times as many epochs in one fold as in another: said
CHOSEN = ("clean-chosen", "shift-chosen")
MOST_VALUES = 20  # of domains; the worst are shown


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {' '.join(map(str, folds))}"


def print_members(aligned: Aligned, metric: Metric) -> None:
    """Print the members, who has finished which folds, and how alike they are."""
    labels = read_label_names(aligned.dataset)
    used = f"{_folds(aligned.folds)} of {len(aligned.all_folds)}"
    print(
        f"{aligned.dataset}/{aligned.scheme}: {used}, {len(aligned.models)} member(s), "
        f"{len(aligned)} items in {aligned.n_groups} groups, "
        f"{aligned.label.mean():.1%} {labels.names[1]}"
    )
    print(f"labels: {labels.polarity}\n")
    ragged = ["folds", "items"] if not aligned.complete.all() else []
    cut = ["best in-sample", "at"] if metric.decides else []
    more = [] if metric.name == "auc" else ["AUC"]
    rows = [["member", *ragged, metric.title + " @0.5" * metric.decides, *cut, *more, ""]]
    for model, column in zip(aligned.models, aligned.logit.T, strict=True):
        label, logit = aligned.label[~np.isnan(column)], column[~np.isnan(column)]
        prob = sigmoid(logit)
        area = auc(label, logit)
        marks = ["selected-on"] if model in aligned.selected_on else []
        marks += ["folds not known"] if model in aligned.unsure else []
        marks += ["the wrong way round: P(real)?"] if area < 0.5 else []
        cells = [" ".join(map(str, aligned.folds_of(model))), str(label.size)] if ragged else []
        cells += [f"{score_of(metric, label, prob, prob >= 0.5):.4f}"]
        if metric.decides:
            rule, best = fit_threshold(label, logit, ALONE, metric)
            cells += [f"{best:.4f}", f"{rule.threshold:.4f}"]
        rows.append([model, *cells, *[f"{area:.4f}" for _ in more], ", ".join(marks)])
    print_table(rows)
    if aligned.selected_on:
        print(
            "selected-on: the epoch (or the merge) was chosen by its score on these items, which "
            "flatters it"
        )
    for model in aligned.models:
        made = _epochs_made(aligned, model)
        if made and max(made) > UNEVEN * min(made):
            print(
                f"{model}: its folds made {min(made):.1f} to {max(made):.1f} epochs (--minutes), "
                "so they are not equally good"
            )
    for merge, member in aligned.echoes:
        print(f"left out: {merge}, which turned out to be {member} itself")
    _print_diversity(aligned)


def _epochs_made(aligned: Aligned, model: str) -> list[float]:
    """Return how many epochs each fold of a model made, where `--minutes` had a say in it."""
    places = [(aligned.dataset, aligned.scheme, model, fold) for fold in aligned.folds_of(model)]
    records = [read_run(*place) for place in places if has_run(*place)]
    if not any(record["budget"] for record in records):
        return []
    return [(r["budget"] or {"epochs": len(r["history"])})["epochs"] for r in records]


def _print_diversity(aligned: Aligned) -> None:
    """Print the correlation of logits of all pairs, or of the most alike where there are many."""
    models = aligned.models
    if len(models) < 2:
        return
    alike = correlations(aligned.logit)
    first, other = np.triu_indices(len(models), 1)
    known = ~np.isnan(alike[first, other])  # two that share no items tell nothing
    pairs = first[known], other[known]
    if not known.any():
        return
    print(f"\ncorrelation of logits, mean of {pairs[0].size} pair(s) {alike[pairs].mean():.3f}")
    if len(models) <= MOST_MEMBERS:
        rows = [["", *models]]
        rows += [
            [m, *("-" if np.isnan(value) else f"{value:.3f}" for value in alike[i])]
            for i, m in enumerate(models)
        ]
        print_table(rows)
        return
    for place in np.argsort(-alike[pairs])[:5]:
        one, other = pairs[0][place], pairs[1][place]
        print(f"  most alike: {models[one]}, {models[other]}: {alike[one, other]:.3f}")


def print_candidates(tuned: Tuned, what: str = "items") -> None:
    """Print every candidate's scores and the chosen weights; `what`: its rows are called."""
    header = ["candidate", "voting", "cross-fitted", "95 % interval", "gain ± s.e.", "over",
              "in-sample", "optimism", ""]  # fmt: skip
    print()
    rows = [header, *(_candidate_row(c, tuned.chosen) for c in tuned.candidates)]
    counts = [c.decided for c in tuned.candidates]
    if len(set(counts)) > 1:  # members have finished different folds
        for row, count in zip(rows, ["by its own", *map(str, counts)], strict=True):
            row.insert(2, count)
    print_table(rows)
    for note in tuned.notes:
        print(note)
    scores = tuned.recipe.scores
    metric = metric_named(tuned.recipe.metric)
    which = "" if metric.higher else ", less is better (a gain is shown as more)"
    print(f"{metric.title} on {scores['rows']} {what} in {scores['groups']} groups{which}")
    weights = ", ".join(f"{m.model} {m.weight:.3f}" for m in tuned.recipe.members)
    print(f"weights of {tuned.chosen}: {weights}; {_thresholds(tuned)}")


def print_kinds(ruled: Ruled) -> None:
    """Print what each kind of thing that could predict is worth, and what the rules cost."""
    print(f"\nrules: {ruled.rules}")
    header = ["what predicts", "who", "cross-fitted", "95 % interval", "gain ± s.e.", "over",
              "files", "parameters", "views", "hours", ""]  # fmt: skip
    print_table([header, *(_kind_row(offer, ruled.chosen) for offer in ruled.offers)])
    if ruled.note:
        print(ruled.note)
    for offer in ruled.offers:
        if offer.note:
            print(f"{offer.kind}: {offer.note}")
    if any(offer.load is not None and offer.load.hours is not None for offer in ruled.offers):
        print("hours: of the test items, at a third of a training step each, where it was trained")


def _kind_row(offer: Offer, chosen: Offer | None) -> list[str]:
    score, load = offer.score, offer.load
    if load is None or score is None:
        return [offer.kind, *["-"] * 9, offer.lacking]
    scored = _candidate_row(score, chosen="")
    verdict = "breaks " + ", ".join(offer.broken) if offer.broken else offer.lacking
    return [
        offer.kind, offer.who(), *scored[2:6],
        str(load.nets), "?" if load.parameters is None else in_millions(load.parameters),
        str(load.views or "?"), "?" if load.hours is None else f"{load.hours:.2g}",
        "chosen" if offer is chosen else verdict or "obeys",
    ]  # fmt: skip


def verdict_of_rules(ruled: Ruled) -> str:
    """Say in a sentence or two what predicts under the rules, why, and what they cost."""
    chosen = ruled.chosen
    assert chosen is not None
    words = f"{chosen.kind} predicts ({chosen.who()})"
    gain = None if chosen.score is None else chosen.score
    if gain is not None and gain.taken and gain.over is not None:
        words += f": {gain.gain:+.4f} over {gain.over}, more than one standard error"
        words += f" ({gain.gain_se:.4f})"
    hint = ""
    if chosen.kind == ONE and chosen.tuned is not None:
        model = chosen.tuned.recipe.members[0].model
        hint = (
            f" A refit of it would have seen all rows: train_folds.py --model {model} --fold all, "
            "then tune again."
        )
    return f"{words}.{_price(ruled.price)}{hint}"


def _price(price: Price | None) -> str:
    if price is None:
        return ""
    words = f" Cross-fitted it scores {price.obeying:.4f}, and without rules {price.free:.4f}"
    if price.interval is None or price.error is None:
        return f"{words}: the rules cost {price.cost:+.4f}."
    low, high = price.interval
    return (
        f"{words}: the rules cost {price.cost:+.4f} ± {price.error:.4f} (95 %: {low:+.4f} .. "
        f"{high:+.4f}; the same rows, the same draws)."
    )


def print_conditions(chosen: Shifted) -> None:
    """Print what was chosen on a mixture, and what is worth what under each condition."""
    names = [chosen.clean.chosen]
    if chosen.mixture is not None and chosen.mixed is not None:
        print(f"\nchosen under shift: on a mixture of {chosen.mixture.words()}")
        print_candidates(chosen.mixed, "rows")
        names.append(chosen.mixed.chosen)
    heads = [f"{how}: {name}" for how, name in zip(CHOSEN, names, strict=False)]
    compared = ["difference", "95 % interval"] if len(names) > 1 else ["95 % interval"]
    rows = [["cross-fitted", "rows", *heads, *compared]]
    print()
    print_table(rows + [_condition_row(line) for line in chosen.lines if not line.is_level])
    for line in chosen.lines:
        if line.note:
            print(f"{line.name}: {line.note}")
    if chosen.mixed is not None and chosen.clean.winner.curves:
        print(f"{chosen.mixed.chosen}: on a mixture no fold is calibrated by itself")
    for look in chosen.looks[1:]:
        print(
            f"{look.name}: {look.cross_fitted:.4f} on the items as they are, {look.gain:+.4f} over "
            f"{look.over}{_error(look)}: {'taken' if look.taken else 'not taken'}; how delivered "
            "items look when delivered again is not known"
        )


def _condition_row(line: Worth) -> list[str]:
    cells = [f"{score:.4f}" for score in line.scores]
    if line.worst:
        cells = [f"{cell} ({level})" for cell, level in zip(cells, line.worst, strict=True)]
    limits = line.interval
    if len(line.scores) > 1:
        gain = "-" if line.gain is None else f"{line.gain:+.4f}"
        cells, limits = [*cells, gain], line.gain_interval
    sign = "+" if line.gain is not None else ""
    text = "-" if limits is None else f"{limits[0]:{sign}.4f} .. {limits[1]:{sign}.4f}"
    name = f"{line.name}, before deliveries" if line.before_deliveries else line.name
    return [name, str(line.rows), *cells, text]


def _error(look: Candidate) -> str:
    return "" if look.gain_se is None else f" (s.e. {look.gain_se:.4f})"


def verdict_under(chosen: Shifted) -> str:
    """Say what being chosen under shift gains where, and its price on the items as they are.

    "" where nothing was chosen so.
    """
    if chosen.mixed is None:
        return ""
    shown = [line for line in chosen.lines if not line.is_level]
    gains = {line.name: line.gain for line in shown if line.name not in (CLEAN, WORST)}
    told = [f"{gain:+.4f} {name}" for name, gain in gains.items() if gain is not None]
    said = ", ".join(told) or "nothing that can be told"
    clean = shown[0].gain or 0.0  # what is lost, the price, has a minus
    words = (
        f"{chosen.mixed.chosen}, chosen under shift, gains {said} over {chosen.clean.chosen}, "
        "which the items as they are choose"
    )
    if shown[-1].before_deliveries:
        return (
            f"{words}, before the mean over deliveries; on these, with that mean as it predicts, "
            f"{clean:+.4f}."
        )
    return f"{words}; on these {clean:+.4f}."


def print_breakdown(tuned: Tuned) -> None:
    """Print the winner's cross-fitted scores by kind and by domain, where there are several."""
    real, fake = names = read_label_names(tuned.recipe.dataset).names
    metric = metric_named(tuned.recipe.metric)
    keys = list(dict.fromkeys([metric.name, "f1_real", "f1_fake", "auc"]))
    own = {"f1_real": f"F1 {real}", "f1_fake": f"F1 {fake}"}
    titles = [own.get(key, metric_named(key).title) for key in keys]
    for by, parts in tuned.recipe.scores["breakdown"].items():
        worst = sorted(parts, key=lambda part: _weakness(part, metric))
        kept = [part["value"] for part in worst[:MOST_VALUES]]
        rows = [[by, "items", fake, *titles, ""]]
        rows += [_breakdown_row(part, keys, names) for part in parts if part["value"] in kept]
        print(f"\n{tuned.chosen} by {by}, cross-fitted, at its threshold")
        print_table(rows)
        if len(parts) > len(kept):
            print(f"the {len(kept)} worst of {len(parts)}; all are in the recipe")


def _weakness(part: dict[str, Any], metric: Metric) -> float:
    """Return the metric, more is better, or of a part of one class the F1 of that class."""
    if part[metric.name] is not None:
        return metric.sign * part[metric.name]
    known = [part[key] for key in ("f1_real", "f1_fake") if part[key] is not None]
    return known[0] if known else 0.0


def _breakdown_row(part: dict[str, Any], keys: Sequence[str], names: tuple[str, str]) -> list[str]:
    only = "" if 0 < part["fakes"] < part["n"] else f"only {names[bool(part['fakes'])]}"
    numbers = (part[key] for key in keys)
    return [
        part["value"] or "(none)",
        str(part["n"]),
        str(part["fakes"]),
        *("-" if number is None else f"{number:.4f}" for number in numbers),
        only,
    ]


def _thresholds(tuned: Tuned) -> str:
    if tuned.recipe.stage("voting")["rule"] == "hard":
        return "members' thresholds " + ", ".join(
            f"{member.threshold:.4f}" for member in tuned.recipe.members
        )
    stage = tuned.recipe.stage("threshold")
    if not metric_named(tuned.recipe.metric).decides:
        return "no threshold: the metric wants none (decisions would be taken at 0.5)"
    text = f"threshold {stage['value']:.4f}"
    limits = tuned.recipe.scores["threshold_interval"]
    if limits is not None:
        text += f" (the best one lies in {limits[0]:.4f} .. {limits[1]:.4f})"
    for value, cut in stage.get("values", {}).items():
        text += f", {cut:.4f} for {value}"
    return text


def _candidate_row(candidate: Candidate, chosen: str) -> list[str]:
    c = candidate
    gain = "" if c.gain is None else f"{c.gain:+.4f}"
    return [
        f"{c.name} ({c.trials} trials)" if c.trials else c.name,
        c.voting,
        "-" if c.cross_fitted is None else f"{c.cross_fitted:.4f}",
        "-" if c.interval is None else f"{c.interval[0]:.4f} .. {c.interval[1]:.4f}",
        gain if c.gain_se is None else f"{gain} ± {c.gain_se:.4f}",
        c.over or "",
        f"{c.in_sample:.4f}",
        "-" if c.optimism is None else f"{c.optimism:+.4f}",
        "chosen" if c.name == chosen else "",
    ]


def verdict(tuned: Tuned) -> str:
    """Say in one sentence which candidate the recipe holds, and why."""
    chosen = next(c for c in tuned.candidates if c.name == tuned.chosen)
    if chosen.gain is not None:
        return (
            f"{chosen.name} is taken: on items it was not tuned on it scores "
            f"{chosen.cross_fitted:.4f}, {chosen.gain:+.4f} over {chosen.over}, more than one "
            f"standard error ({chosen.gain_se:.4f})."
        )
    if chosen.cross_fitted is None:
        return f"{chosen.name} stays: nothing could be scored on items it was not tuned on."
    if len(tuned.candidates) > 1 and tuned.recipe.scores["interval"] is None:
        return f"{chosen.name} stays: with so few groups no gain can be told from luck."
    return f"{chosen.name} stays: no candidate gains more than one standard error over it."
