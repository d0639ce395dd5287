"""`python -m src robustness`: scores of held-out items as messengers and sites deliver them."""

from argparse import Namespace
from functools import partial

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import read_folds
from src.artifacts.oof import Levels
from src.artifacts.recipes import check_recipe_fresh, read_recipe
from src.cli import parsers
from src.cli.common import (
    choose_recipe,
    choose_scheme,
    choose_tunable,
    print_table,
    recipe_path,
    show_log,
    taken,
)
from src.compute.clock import cpu_seconds
from src.compute.request import Compute
from src.data.layouts.load import load_dataset
from src.data.pixels.deliveries import OPERATIONS, SETS, levels_named
from src.ensemble.shift.delivered import check_ours
from src.errors import UserError
from src.inference.deliveries import deliver_held_out
from src.inference.lineage import check_own
from src.reporting.evaluated import Subject, subject_of_model, subject_of_recipe
from src.reporting.robustness import (
    FLIPS,
    FPR,
    RobustnessCard,
    draw_card,
    records,
    score_levels,
    table_of,
)


def run_robustness(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    if arguments.list:
        _list_levels()
        return
    show_log()
    if not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed {arguments.seed}: want 0 to {2**32 - 1}")
    levels = levels_named(arguments.levels)
    name = choose_tunable(arguments.data, arguments.input_root)
    subjects = _subjects(arguments, name)
    scheme = subjects[0].recipe.scheme
    runs: dict[str, list[int]] = {}
    for subject in subjects:
        aligned = subject.aligned
        check_own(name, scheme, aligned.models, aligned.folds, arguments.input_root)
        runs |= {model: aligned.folds_of(model) for model in aligned.models}
    check_ours(name, scheme, list(runs))
    dataset = load_dataset(name, arguments.input_root)
    folds = read_folds(paths.readable(paths.folds_csv(name, scheme)))
    began, compute = cpu_seconds(), taken(Compute, arguments)
    wanted = Levels(tuple(levels), arguments.seed)
    looked = deliver_held_out(dataset, scheme, folds, runs, wanted, compute)
    if looked:
        print(f"looked at {looked} delivered pictures in {cpu_seconds() - began:.0f} CPU-s")
    for subject in subjects:
        _show_card(subject, score_levels(subject, levels, arguments.seed), arguments.seed)


def _subjects(arguments: Namespace, name: str) -> list[Subject]:
    if arguments.recipe is None:
        scheme = choose_scheme(name, arguments.scheme)
        return [subject_of_model(name, scheme, model) for model in dict.fromkeys(arguments.model)]
    chosen = choose_recipe(name, arguments.recipe)
    recipe = read_recipe(recipe_path(name, chosen))
    check_recipe_fresh(recipe)
    return [subject_of_recipe(chosen, recipe)]


def _show_card(subject: Subject, card: RobustnessCard, seed: int) -> None:
    recipe = subject.recipe
    where = f"{recipe.dataset}/{recipe.scheme}"
    folds = " ".join(map(str, subject.aligned.folds))
    print(
        f"\n{card.name} on {where}: {card.items} held-out items of fold {folds} "
        f"({card.reals} real, {card.groups} groups), levels drawn with seed {seed}"
    )
    print(f"threshold: {card.threshold}")
    for note in card.notes:
        print(note)
    print()
    print_table(table_of(card))
    if card.worst:
        print(f"\nworst by AUC: {card.worst}")
    print(
        f"{FPR}: reals called fake; {FLIPS}: verdicts other than of the item as it is (where there "
        "is the level whole: than of it decoded at full size, as at every level). Intervals: 95 %, "
        "by group, thresholds held fixed"
    )
    path = paths.robustness_csv(
        recipe.dataset, recipe.scheme, card.name, is_recipe=subject.is_recipe
    )
    head = {"data": recipe.dataset, "folds": folds, "seed": seed}
    write_csv(path, records(card, head))
    picture = draw_card(card, f"{card.name} on {where}", path.with_suffix(".png"))
    print(f"table: {path}\npicture: {picture}")


def _list_levels() -> None:
    rows = [["level", "strength", "what it does"]]
    for name in OPERATIONS:
        one = OPERATIONS.get(name)
        rows.append([name, f"{one.low:g} to {one.high:g}" if one.high else "", one.about])
    print_table(rows)
    print("\nsets:")
    print_table([[f"  {name}", " ".join(levels)] for name, levels in SETS.items()])


main = partial(parsers.main, "robustness")
