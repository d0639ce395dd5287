"""What `python -m src compare` prints: cost, then a table a metric and level."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.cli.evaluate_report import cell
from src.cli.tune_report import print_table

if TYPE_CHECKING:
    from src.cli.compare import Place
    from src.reporting.comparison import Result

SHOWN = ("macro_f1", "auc", "eer", "hter")
ONE_CLASS = ("accuracy",)  # what is left to say of a data set of one class


def print_comparison(results: "Sequence[Result]", place: "Place") -> None:
    """Print what every row cost and scored, and what the scores stand on."""
    print()
    _print_costs(results)
    scored = [result for result in results if result.cards]
    if not scored:
        return
    _print_basis(scored, place)
    first = scored[0]
    for level in ("item", "group"):
        sets = [data for data in first.cards if first.card(data, level) is not None]
        if sets:
            _print_level(scored, place, sets, level)
    notes = {f"{result.row}: {note}" for result in scored for note in result.notes}
    notes |= {
        f"{data}, {card.level} level: {note}"
        for result in scored
        for data, cards in result.cards.items()
        for card in cards
        for note in card.notes
    }
    for note in sorted(notes):
        print(note)


def _print_costs(results: "Sequence[Result]") -> None:
    lines = [["row", "model", "trained", "of parameters", "epochs", "seconds", "device"]]
    for result in results:
        cost = result.training
        if cost is None:
            lines.append([result.row, result.model, "failed", *[""] * 4])
            continue
        share = "merged" if cost.share is None else f"{cost.share:.2%}"
        lines.append(
            [result.row, result.model, share, f"{cost.parameters:,}", f"{cost.epochs:g}",
             f"{cost.seconds:.1f}", cost.device]
        )  # fmt: skip
    print_table(lines)
    print("seconds: of the epochs, or of the merge; features computed once are not among them.")


def _print_basis(scored: "Sequence[Result]", place: "Place") -> None:
    numbers = " ".join(map(str, place.folds))
    word = "folds" if len(place.folds) > 1 else "fold"
    print(
        f"\nin-domain: out-of-fold predictions of {place.dataset}/{place.scheme}, {word} {numbers}"
    )
    if place.others:
        print(
            f"out-of-domain: labelled items of {', '.join(place.others)} that were not seen in "
            "training (its test items where their labels are here, else its train items; the "
            f"lines above say how many), by the mean logit of the same {len(place.folds)} "
            "checkpoint(s)\n"
            f"thresholds: carried over from {place.dataset}; hter: at the EER cut of in-domain "
            "predictions. Intervals: 95 %, by group."
        )
    for threshold in dict.fromkeys(result.threshold for result in scored):
        rows = [result.row for result in scored if result.threshold == threshold]
        who = "all rows" if len(rows) == len(scored) else ", ".join(rows)
        print(f"threshold of {who}: {threshold}")


def _print_level(
    scored: "Sequence[Result]", place: "Place", sets: Sequence[str], level: str
) -> None:
    first = scored[0]
    others = [data for data in sets if data in place.others]
    heads, counts = [], []
    for data in sets:
        card = first.card(data, level)
        assert card is not None  # `sets` are those that have one
        heads.append(f"{'out-of' if data in others else 'in'}-domain ({data})")
        counts.append(f"{card.items} ({card.reals} real, {card.fakes} fake)")
    one_class = any(not s.reals or not s.fakes for d in sets if (s := first.card(d, level)))
    several = len(others) > 1
    for metric in [*SHOWN, *(ONE_CLASS * one_class)]:
        lines = [[metric, *heads, *["mean out-of-domain"] * several]]
        lines.append([f"{level} level", *counts, *[""] * several])
        for result in scored:
            found = [result.score(data, level, metric) for data in sets]
            cells = ["" if score is None else cell(score) for score in found]
            mean = result.mean(others, level, metric)
            cells += ["-" if math.isnan(mean) else f"{mean:.4f}"] * several
            lines.append([result.row, *cells])
        print()
        print_table(lines)
