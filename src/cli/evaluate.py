"""`python -m src evaluate`: every metric of the field, on own or on another data set's items."""

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src import paths
from src.cli.common import (
    Parser,
    add_compute_arguments,
    add_data_arguments,
    choose_dataset,
    choose_recipe,
    recipe_names,
    recipe_path,
    run_command,
    show_log,
)
from src.cli.tune_inputs import choose_scheme, choose_tunable
from src.errors import UserError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from src.data.items.manifest import Dataset
    from src.ensemble.predictions import Decided
    from src.inference.cross_dataset import Labelled
    from src.reporting.evaluated import Subject
    from src.reporting.scorecard import Card

DESCRIPTION = """Score out-of-fold predictions by every metric of the field, with 95 % intervals.

  python -m src evaluate --model effnet_b0                   or: --recipe tuned
  python -m src evaluate --model effnet_b0 --by domain       a column a domain
  python -m src evaluate --model effnet_b0 --data B --from A
                          checkpoints and threshold of A on the labelled items of B (its test
                          items where their labels are there), beside A's own scores
  python -m src evaluate --model effnet_b0 --split test      on A's own test items, if labelled

Writes reports/<data set>/<scheme>/<model>/scorecard.csv."""


def make_parser() -> Parser:
    """Return the parser of the verb."""
    parser = Parser(DESCRIPTION, prog="python -m src evaluate")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="NAME", help="a model with out-of-fold predictions")
    what.add_argument("--recipe", metavar="NAME", help="a recipe that tune.py wrote")
    parser.add_argument(
        "--folds", type=int, nargs="+", metavar="K", help="default: every finished one"
    )
    parser.add_argument(
        "--by", choices=["domain", "manipulation", "kind"],
        help="score each alone too; a manipulation is the domain of fakes, against reals",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="VALUE", help="of --by, these alone")
    parser.add_argument(
        "--from", dest="source", metavar="A", help="predict --data with what was trained on A"
    )
    parser.add_argument(
        "--split", choices=["train", "test"],
        help="labelled items of --data to predict; default: test, where it is labelled",
    )  # fmt: skip
    add_data_arguments(parser)
    add_compute_arguments(parser)
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
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
    from src.inference.lineage import check_own
    from src.reporting.evaluated import check_folds, levels_of, own_rows

    folds = check_folds(subject, arguments.folds)
    models, scheme = subject.aligned.models, subject.recipe.scheme
    check_own(name, scheme, models, subject.aligned.folds, arguments.input_root)
    decided, split = {name: levels_of(own_rows(subject), folds=folds)}, "train"
    where = other
    if other is not None:
        rows, split = predict_other(arguments, subject, folds, other, arguments.split)
        where = other if split == "train" else f"{other} {split}"
        decided[where] = levels_of(rows, development=own_rows(subject, folds))
    if arguments.only:
        _check_only(decided, arguments)
    cards = _cards(decided, arguments)
    path = paths.scorecard_csv(
        name, subject.recipe.scheme, subject.name, other, split=split, is_recipe=subject.is_recipe
    )
    from src.cli.printing.evaluate import print_cards, write_cards

    print_cards(subject, folds, cards, where)
    write_cards(path, subject, folds, cards)
    print(f"\nscorecard: {path}")


def _subject(arguments: Namespace, name: str) -> "Subject":
    from src.artifacts.recipes import check_recipe_fresh, read_recipe
    from src.reporting.evaluated import subject_of_model, subject_of_recipe

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
    home = paths.oof_home()
    datasets = sorted(p.name for p in home.iterdir() if p.is_dir()) if home.is_dir() else []
    having = [dataset for dataset in datasets if _has(arguments, dataset)]
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
    arguments: Namespace, subject: "Subject", folds: list[int], other: str, split: str | None = None
) -> "tuple[Decided, str]":
    """Predict the labelled items of another data set, as far as it is not done; says how many.

    Args:
        arguments: with `device, precision, workers, auto_batch, input_root`.
        subject: what predicts them.
        folds: whose checkpoints.
        other: the data set; that of the subject for its own test items.
        split: see `labelled_items`.

    Returns:
        The rows, and the split that they are.

    Raises:
        UserError: its items are among what the checkpoints were trained on; see `cross_logits`.
    """
    from src.compute.request import Compute
    from src.data.layouts.load import load_dataset
    from src.inference.cross_dataset import (
        check_parts,
        cross_logits,
        labelled_items,
        leave_out_seen,
        to_predict,
    )
    from src.inference.lineage import records_of, trained_sets
    from src.reporting.evaluated import other_rows

    recipe, dataset = subject.recipe, load_dataset(other, arguments.input_root)
    own = other == recipe.dataset
    if not own:
        check_parts(recipe.dataset, dataset, arguments.input_root)
    runs = records_of(recipe, folds)
    trained = trained_sets(runs, dataset, arguments.input_root, own=own)
    found = labelled_items(dataset, split)
    table = found.table
    for name, ids in trained.items():
        table = leave_out_seen(name, ids, dataset, table, arguments.input_root, recipe.scheme)
    items = to_predict(dataset, table)
    compute = Compute.of(arguments)
    logits, predicted = cross_logits(recipe, folds, other, items, compute, split=found.split)
    grouped = _with_groups(table, dataset) if found.split == "train" else table
    rows, lost = other_rows(subject, grouped, logits)
    print(f"{other}: {len(items.item_ids)} labelled {found.split} items, {predicted} checkpoint(s) "
          f"predicted them{_left_aside(found, own=own)}")  # fmt: skip
    if lost:
        shown = ", ".join(lost[:10]) + (" ..." if len(lost) > 10 else "")
        print(f"not readable, so not scored: {len(lost)} item(s): {shown}")
    return rows, found.split


def _left_aside(found: "Labelled", *, own: bool) -> str:
    words = []
    if found.aside and not own:
        rest = "train" if found.split == "test" else "test"
        words.append(f"{found.aside} labelled {rest} items are not among them (--split {rest})")
    if found.unlabelled:
        words.append(f"{found.unlabelled} test items have no label here")
    return "".join(f"; {text}" for text in words)


def _with_groups(table: "pd.DataFrame", dataset: "Dataset") -> "pd.DataFrame":
    """Return the table with the groups of the data set's own fold file, which knows copies too."""
    from src.artifacts.folds import existing_scheme, read_folds

    try:
        scheme = existing_scheme(dataset.name, None)
    except UserError:
        scheme = None  # several: the given groups will do
    if scheme is None:
        return table
    known = read_folds(paths.folds_csv(dataset.name, scheme)).set_index("item_id")["group"]
    return table.assign(group=table["item_id"].map(known).fillna(table["group"]))


def _cards(
    decided: "dict[str, dict[str, Decided]]", arguments: Namespace
) -> "dict[str, list[Card]]":
    """Return data set -> cards: of each level the whole, then its parts."""
    from src.reporting.evaluated import parts
    from src.reporting.scorecard import score_rows

    found: dict[str, list[Card]] = {}
    for name, levels in decided.items():
        found[name] = []
        for level, rows in levels.items():
            found[name].append(score_rows(rows, level))
            for value, mask, note in parts(rows, arguments.by) if arguments.by else ():
                if not arguments.only or value in arguments.only:
                    part = score_rows(rows.take(mask), level, arguments.by, value, note)
                    found[name].append(part)
    return found


def _check_only(decided: "dict[str, dict[str, Decided]]", arguments: Namespace) -> None:
    from src.reporting.evaluated import parts

    items = [levels["item"] for levels in decided.values()]
    known = {value for rows in items for value, _, _ in parts(rows, arguments.by)}
    for value in arguments.only:
        if value not in known:
            raise unknown_name(arguments.by, value, known)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src evaluate`; returns the exit code."""
    return run_command(_run, argv)
