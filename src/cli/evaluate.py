"""`python -m src evaluate`: every metric of the field, on own or on another data set's items."""

import math
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import existing_scheme, read_folds
from src.artifacts.label_names import read_label_names
from src.artifacts.recipes import check_recipe_fresh, read_recipe
from src.cli import parsers
from src.cli.common import (
    choose_dataset,
    choose_recipe,
    choose_scheme,
    choose_tunable,
    datasets_with_oof,
    listed,
    print_table,
    recipe_names,
    recipe_path,
    show_log,
    taken,
)
from src.compute.request import Compute
from src.data.items.manifest import Dataset
from src.ensemble.predictions import Decided
from src.errors import UserError, unknown_name
from src.inference.lineage import check_own, records_of, trained_sets
from src.machine import keep_freed_memory
from src.metrics import metric_named
from src.reporting.card_table import mean_words, reasons, records, table_of
from src.reporting.evaluated import (
    CROSS_FITTED,
    Rows,
    Subject,
    check_folds,
    honest_rows,
    levels_of,
    other_rows,
    own_levels,
    own_rows,
    parts,
    subject_of_model,
    subject_of_recipe,
)
from src.reporting.fitted import Fitted, how_fitted
from src.reporting.paired import differences, disagreement, same_items, sentence
from src.reporting.scorecard import Card, score_all, score_rows

if TYPE_CHECKING:
    from src.inference.cross_dataset import LabelledRows

COLUMNS = 4  # of a printed table
MOST_PARTS = 20  # printed; all are in the CSV
LEGEND = """fake = positive. auc, ap, eer, tpr@fpr and tnr@fnr look at the order of probs alone.
hter: at the EER cut of development rows, {dev}.
hter_test_eer: at the EER cut of the scored rows themselves: flattering, but papers print it.
apcer: of the worst kind of attack (domain of fakes). It, bpcer and acer (ISO/IEC 30107-3), f1,
precision, recall and accuracy stand at the threshold.
tnr@fnr=1%: what papers with real = positive (FLIP) call TPR@FPR=1%.
ece: 15 equally wide bins of P(fake). Intervals: 95 %, by group, by the luck of the rows alone:
thresholds held fixed, nothing chosen anew, no other folds."""
WIDER = "But {metric}, {how}: also by the choice among candidates and by how much folds differ."


def run_evaluate(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    keep_freed_memory()
    if arguments.by == "mask" or arguments.blends:
        from src.cli.report import run_localisation  # torch, which own predictions do not need

        run_localisation(arguments)
    else:
        _score_labels(arguments)


def _score_labels(arguments: Namespace) -> None:
    if arguments.only and not arguments.by:
        raise UserError("--only names values of --by domain, manipulation or kind: give --by too")
    show_log()
    other = None
    if arguments.source is not None:
        other = choose_dataset(arguments.data, arguments.input_root)
        if other == arguments.source:
            raise UserError(f"--from {other} and --data {other} are one data set: drop --from")
    name = choose_tunable(arguments.source or arguments.data, arguments.input_root)
    if arguments.source is None:
        _offer_source(arguments, name)
    if other is None and arguments.split == "test":
        other = name
    elif other is None and arguments.split is not None:
        raise UserError("--split train goes with --from: own train items are scored out-of-fold")
    subject = _subject(arguments, name)
    folds = check_folds(subject, arguments.folds)
    models, scheme = subject.aligned.models, subject.recipe.scheme
    check_own(name, scheme, models, subject.aligned.folds, arguments.input_root)
    decided, split = own_levels(subject, folds), "train"
    where = other
    if other is not None:
        rows, split = predict_other(
            subject,
            arguments.folds,
            other,
            taken(Compute, arguments),
            arguments.input_root,
            arguments.split,
        )
        where = other if split == "train" else f"{other} {split}"
        decided[Rows(where)] = levels_of(rows, development=own_rows(subject, folds))
    if arguments.only:
        _check_only(decided, arguments.by, arguments.only)
    cards = score_all(decided, arguments.by, arguments.only, metric_named(subject.metric))
    said = how_fitted(subject, cards)
    path = paths.scorecard_csv(
        name, subject.recipe.scheme, subject.name, other, split=split, is_recipe=subject.is_recipe
    )
    print_cards(subject, folds, cards, where, said)
    if arguments.versus is not None:
        first = next(iter(cards.values()))[0]
        _print_versus(subject, folds, first, arguments.versus, arguments.input_root)
    write_cards(path, subject, folds, cards)
    print(f"\nscorecard: {path}")


def _subject(arguments: Namespace, name: str) -> Subject:
    if arguments.recipe is not None:
        chosen = choose_recipe(name, arguments.recipe)
        recipe = read_recipe(recipe_path(name, chosen))
        if arguments.scheme is not None and recipe.scheme != arguments.scheme:
            raise UserError(
                f"recipe {chosen} is of scheme {recipe.scheme}, not of --scheme {arguments.scheme}"
            )
        check_recipe_fresh(recipe)
        return subject_of_recipe(chosen, recipe)
    scheme = choose_scheme(name, arguments.scheme)
    return subject_of_model(name, scheme, arguments.model)


def _offer_source(arguments: Namespace, name: str) -> None:
    """Raise, where the model or recipe is of another data set alone, with the way to test it."""
    having = [dataset for dataset in datasets_with_oof() if _has(arguments, dataset)]
    if name in having or not having:
        return
    flag = "--model" if arguments.recipe is None else "--recipe"
    what = f"{flag} {arguments.model or arguments.recipe}"
    raise UserError(
        f"{what}: nothing of it was made on {name}, but on {', '.join(having)}; to test that on "
        f"{name}: python -m src evaluate {what} --data {name} --from {having[0]}"
    )


def _has(arguments: Namespace, dataset: str) -> bool:
    if arguments.recipe is not None:
        return arguments.recipe in recipe_names(dataset)
    slug = paths.model_slug(arguments.model)
    return any((paths.oof_home() / dataset).glob(f"*/{slug}/fold_*.csv"))


def predict_other(
    subject: Subject,
    folds: Sequence[int] | None,
    other: str,
    compute: Compute,
    input_root: Path | None,
    split: str | None = None,
) -> tuple[Decided, str]:
    """Predict the labelled items of another data set, as far as it is not done; says how many.

    `folds`: only these checkpoints of each member; None takes those that the recipe ships.
    `other` is the subject's own data set for its test items; of `split` see `labelled_items`.
    Returns the rows, and the split that they are.
    """
    # Own predictions are scored without OpenCV, which finds what two data sets share.
    from src.data.layouts.load import load_dataset
    from src.inference.cross_dataset import (
        check_parts,
        cross_logits,
        labelled_items,
        leave_out_seen,
        to_predict,
    )  # fmt: skip

    recipe, dataset = subject.recipe, load_dataset(other, input_root)
    own = other == recipe.dataset
    if not own:
        check_parts(recipe.dataset, dataset, input_root)
    runs = records_of(recipe, folds)
    trained = trained_sets(runs, dataset, input_root, own=own)
    found = labelled_items(dataset, split)
    table = found.table
    for name, ids in trained.items():
        table = leave_out_seen(name, ids, dataset, table, input_root, recipe.scheme)
    items = to_predict(dataset, table)
    logits, predicted = cross_logits(recipe, folds, other, items, compute, split=found.split)
    grouped = _with_groups(table, dataset) if found.split == "train" else table
    rows, lost = other_rows(subject, grouped, logits)
    print(f"{other}: {len(items.item_ids)} labelled {found.split} items, {predicted} checkpoint(s) "
          f"predicted them{_left_aside(found, own=own)}")  # fmt: skip
    if lost:
        print(f"not readable, so not scored: {len(lost)} item(s): {listed(lost)}")
    return rows, found.split


def _left_aside(found: "LabelledRows", *, own: bool) -> str:
    words = []
    if found.aside and not own:
        rest = "train" if found.split == "test" else "test"
        words.append(f"{found.aside} labelled {rest} items are not among them (--split {rest})")
    if found.unlabelled:
        words.append(f"{found.unlabelled} test items have no label here")
    return "".join(f"; {text}" for text in words)


def _with_groups(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Return the table with the groups of the data set's own fold file, which knows copies too."""
    try:
        scheme = existing_scheme(dataset.name, None)
    except UserError:
        scheme = None  # several: the given groups will do
    if scheme is None:
        return table
    known = read_folds(paths.folds_csv(dataset.name, scheme)).set_index("item_id")["group"]
    return table.assign(group=table["item_id"].map(known).fillna(table["group"]))


def _check_only(decided: dict[Rows, dict[str, Decided]], by: str, only: Sequence[str]) -> None:
    items = [levels["item"] for levels in decided.values()]
    known = {value for rows in items for value, _, _ in parts(rows, by)}
    for value in only:
        if value not in known:
            raise unknown_name(by, value, known)


def print_cards(
    subject: Subject,
    folds: Sequence[int],
    cards: dict[Rows, list[Card]],
    other: str | None,
    said: Fitted,
) -> None:
    """Print what is scored, the tables, what is undefined and why."""
    recipe, labels = subject.recipe, read_label_names(subject.recipe.dataset)
    word = "recipe" if subject.is_recipe else "model"
    count = len(subject.aligned.all_folds)
    print(
        f"{word} {subject.name} on {recipe.dataset}/{recipe.scheme}: fold"
        f"{'s' * (len(folds) > 1)} {' '.join(map(str, folds))} of {count}, out-of-fold"
    )
    cross = f"; cross-fitted: {subject.cuts}" if subject.cuts else ""
    print(f"threshold: {subject.threshold}{cross}; labels: {labels.polarity}")
    for note in [*said.notes, *subject.notes]:
        print(note)
    titles = {rows: rows.title(recipe.dataset, other) for rows in cards}
    if other is not None:
        print(
            f"{other}: mean logit of {len(folds)} checkpoint(s) trained on {recipe.dataset}, all "
            "thresholds carried over from there"
        )
    whole = [(titles[name], card) for name, group in cards.items() for card in group if not card.by]
    print_tables(whole, labels.names)
    for name, group in cards.items():
        for level in ("item", "group"):
            parts = [c for c in group if c.by and c.level == level]
            _print_parts(titles[name], parts, labels.names)
    dev = "the other folds" if other is None else f"the other folds, or all of {recipe.dataset}"
    print("\n" + LEGEND.format(dev=dev))
    if said.wider:
        print(WIDER.format(metric=subject.metric, how=CROSS_FITTED))


def _print_versus(
    subject: Subject, folds: list[int], card: Card, name: str, root: Path | None
) -> None:
    """Say whether another model or recipe is better on the same out-of-fold rows."""
    dataset, scheme = subject.recipe.dataset, subject.recipe.scheme
    if name in recipe_names(dataset):
        recipe = read_recipe(recipe_path(dataset, name))
        check_recipe_fresh(recipe)
        other = subject_of_recipe(name, recipe)
    else:
        other = subject_of_model(dataset, scheme, name)
    check_folds(other, folds)
    check_own(dataset, scheme, other.aligned.models, other.aligned.folds, root)
    rows = levels_of(honest_rows(other), folds=folds)["item"]
    metrics = {one: metric_named(one) for one in (subject.metric, "macro_f1", "auc")}
    held = score_rows(rows, also=tuple(metrics.values()))
    if not same_items(card, held):
        raise UserError(f"--versus {name}: its rows are not those of {subject.name}")
    found = {one.metric: one for one in differences(card, held)}
    print()
    for metric in metrics.values():
        share = f"; {disagreement(card, held):.1%} of verdicts differ" if metric.decides else ""
        print(sentence(subject.name, name, found[metric.name], metric) + share)


def _print_parts(title: str, group: Sequence[Card], names: tuple[str, str]) -> None:
    if not group:
        return
    print(f"\n{title} by {group[0].by}, {group[0].level} level")
    worst = sorted(group, key=lambda card: _order(card.scores["macro_f1"].value))
    shown = {card.value for card in worst[:MOST_PARTS]}
    print_tables([(card.value, card) for card in group if card.value in shown], names)
    if len(group) > MOST_PARTS:
        print(f"the {MOST_PARTS} worst of {len(group)} by macro_f1; all are in the CSV")
    if len(group) > 1:
        print(f"plain mean over each {group[0].by} that tells it, as papers print it: "
              f"{', '.join(mean_words(group))}")  # fmt: skip


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value


def print_tables(columns: Sequence[tuple[str, Card]], names: tuple[str, str]) -> None:
    """Print cards under their titles, some side by side, and why a score is undefined."""
    for start in range(0, len(columns), COLUMNS):
        some = columns[start : start + COLUMNS]
        print()
        print_table(table_of(some, names))
        for title, card in some:
            for text in [*card.notes, *reasons(card)]:
                print(f"  {title}, {card.level} level: {text}")


def write_cards(
    path: Path, subject: Subject, folds: Sequence[int], cards: dict[Rows, list[Card]]
) -> None:
    """Write every score as a row of a CSV; an undefined one is empty, its note says why."""
    head = {"trained_on": subject.recipe.dataset}
    tail = {"name": subject.name, "folds": " ".join(map(str, folds))}
    rows = [
        head
        | {"data": rows.data, "decided": rows.how}
        | tail
        | record
        | {"threshold": subject.threshold}
        for rows, group in cards.items()
        for card in group
        for record in records(card)
    ]
    write_csv(path, pd.DataFrame(rows))


main = partial(parsers.main, "evaluate")
