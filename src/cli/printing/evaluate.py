"""What `python -m src evaluate` prints and writes: metrics as rows, a column a part."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.artifacts.label_names import read_label_names
from src.cli.printing.tune import print_table

if TYPE_CHECKING:
    from src.reporting.evaluated import Subject
    from src.reporting.scorecard import Card, Score

COLUMNS = 4  # of a printed table
MOST_PARTS = 20  # printed; all are in the CSV
MOST_ATTACKS = 20
LEGEND = """fake = positive. auc, ap, eer, tpr@fpr and tnr@fnr look at the order of probs alone.
hter: at the EER cut of development rows, {dev}.
hter_test_eer: at the EER cut of the scored rows themselves: flattering, but papers print it.
apcer: of the worst kind of attack (domain of fakes). It, bpcer and acer (ISO/IEC 30107-3), f1,
precision, recall and accuracy stand at the threshold.
tnr@fnr=1%: what papers with real = positive (FLIP) call TPR@FPR=1%.
ece: 15 equally wide bins of P(fake). Intervals: 95 %, by group, thresholds held fixed."""


def print_cards(
    subject: "Subject", folds: Sequence[int], cards: "dict[str, list[Card]]", other: str | None
) -> None:
    """Print what is scored, the tables, what is undefined and why."""
    recipe, labels = subject.recipe, read_label_names(subject.recipe.dataset)
    word = "recipe" if subject.is_recipe else "model"
    count = len(subject.aligned.all_folds)
    print(
        f"{word} {subject.name} on {recipe.dataset}/{recipe.scheme}: fold"
        f"{'s' * (len(folds) > 1)} {' '.join(map(str, folds))} of {count}, out-of-fold"
    )
    print(f"threshold: {subject.threshold}; labels: {labels.polarity}")
    for note in subject.notes:
        print(note)
    titles = {name: f"in-domain ({name})" if other else name for name in cards}
    if other is not None:
        own = other == f"{recipe.dataset} test"
        titles[other] = f"test items ({recipe.dataset})" if own else f"cross-domain ({other})"
        print(
            f"{other}: mean logit of {len(folds)} checkpoint(s) trained on {recipe.dataset}, all "
            "thresholds carried over from there"
        )
    whole = [(titles[name], card) for name, group in cards.items() for card in group if not card.by]
    _print_tables(whole, labels.names)
    for name, group in cards.items():
        for level in ("item", "group"):
            parts = [c for c in group if c.by and c.level == level]
            _print_parts(titles[name], parts, labels.names)
    dev = "the other folds" if other is None else f"the other folds, or all of {recipe.dataset}"
    print("\n" + LEGEND.format(dev=dev))


def _print_parts(title: str, group: "Sequence[Card]", names: tuple[str, str]) -> None:
    if not group:
        return
    print(f"\n{title} by {group[0].by}, {group[0].level} level")
    worst = sorted(group, key=lambda card: _order(card.scores["macro_f1"].value))
    shown = {card.value for card in worst[:MOST_PARTS]}
    _print_tables([(card.value, card) for card in group if card.value in shown], names)
    if len(group) > MOST_PARTS:
        print(f"the {MOST_PARTS} worst of {len(group)} by macro_f1; all are in the CSV")


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _print_tables(columns: "Sequence[tuple[str, Card]]", names: tuple[str, str]) -> None:
    for start in range(0, len(columns), COLUMNS):
        some = columns[start : start + COLUMNS]
        print()
        print_table([*_head(some, names), *_lines([card for _, card in some])])
        for title, card in some:
            for text in [*card.notes, *_reasons(card)]:
                print(f"  {title}, {card.level} level: {text}")


def _head(columns: "Sequence[tuple[str, Card]]", names: tuple[str, str]) -> list[list[str]]:
    cards, (real, fake) = [card for _, card in columns], names
    return [
        ["", *(title for title, _ in columns)],
        ["level", *(card.level for card in cards)],
        ["rows", *(f"{c.items} ({c.reals} {real}, {c.fakes} {fake})" for c in cards)],
        ["groups", *(str(card.groups) for card in cards)],
    ]


def _lines(cards: "Sequence[Card]") -> list[list[str]]:
    attacks = [key for card in cards for key in card.scores if key.startswith("apcer[")]
    attacks = list(dict.fromkeys(attacks))
    plain = [key for key in cards[0].scores if not key.startswith("apcer[")]
    place = plain.index("apcer") + 1
    kept = sorted(attacks, key=lambda key: -_worst(cards, key))[:MOST_ATTACKS]
    keys = [*plain[:place], *(key for key in attacks if key in kept), *plain[place:]]
    return [
        [key, *(cell(card.scores[key]) if key in card.scores else "" for card in cards)]
        for key in keys
    ]


def _worst(cards: "Sequence[Card]", key: str) -> float:
    values = [card.scores[key].value for card in cards if key in card.scores]
    return max((value for value in values if not math.isnan(value)), default=0.0)


def cell(score: "Score") -> str:
    """Return a score as text: value, interval; `-` where it is undefined, `*` where limited."""
    if math.isnan(score.value):
        return "-"
    text = f"{score.value:.4f}" + ("*" if score.why else "")
    return text if math.isnan(score.low) else f"{text} [{score.low:.4f}, {score.high:.4f}]"


def _reasons(card: "Card") -> list[str]:
    """Return why some metrics are undefined or limited, the metrics of one reason together."""
    found: dict[str, list[str]] = {}
    for key, score in card.scores.items():
        if score.why:
            mark = "-" if math.isnan(score.value) else "*"
            found.setdefault(f"{mark} ({score.why})", []).append(key)
    return [f"{mark}: {', '.join(keys)}" for mark, keys in found.items()]


def write_cards(
    path: Path, subject: "Subject", folds: Sequence[int], cards: "dict[str, list[Card]]"
) -> None:
    """Write every score as a row of a CSV; an undefined one is empty, its note says why."""
    import pandas as pd

    from src.artifacts.files import write_csv

    trained_on = subject.recipe.dataset
    rows = [
        {
            "trained_on": trained_on,
            "data": name,
            "name": subject.name,
            "folds": " ".join(map(str, folds)),
            "level": card.level,
            "by": card.by,
            "value": card.value,
            "items": card.items,
            "reals": card.reals,
            "fakes": card.fakes,
            "groups": card.groups,
            "metric": metric,
            "score": score.value,
            "low": score.low,
            "high": score.high,
            "threshold": subject.threshold,
            "note": "; ".join([*([score.why] if score.why else []), *card.notes]),
        }
        for name, group in cards.items()
        for card in group
        for metric, score in card.scores.items()
    ]
    write_csv(path, pd.DataFrame(rows))
