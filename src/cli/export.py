"""`python -m src export` and `bundle`: checkpoints for other engines, recipes for elsewhere."""

from argparse import Namespace
from functools import partial

from src import paths
from src.artifacts.competition import hours_of, line_on_hours
from src.artifacts.files import sha256_file
from src.artifacts.folds import existing_scheme, read_folds
from src.artifacts.recipes import read_recipe
from src.artifacts.runs import check_checkpoint, read_run
from src.cli import parsers
from src.cli.common import (
    choose_dataset,
    choose_recipe,
    choose_tunable,
    count_test_items,
    recipe_path,
    show_log,
)
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.inference.bundle import bundle_output, collect, write_bundle
from src.inference.export import Order, check_order, export_checkpoint, is_exported, read_items
from src.inference.lineage import dataset_config
from src.training.job import job_table

CALIBRATION = 128  # training items from which int8 takes its ranges


def run_export(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    if arguments.items < 2:
        raise UserError(f"--items {arguments.items}: want at least 2")
    name, model = choose_dataset(arguments.data, arguments.input_root), arguments.model
    scheme = existing_scheme(name, arguments.scheme)
    if scheme is None:
        raise UserError(f"{name} has no folds yet, so nothing is trained: train_folds.py")
    folds = _finished(name, scheme, model, arguments.fold)
    show_log()
    check_order(arguments.engine, arguments.precision)
    dataset, file = load_dataset(name, arguments.input_root), paths.folds_csv(name, scheme)
    table, folds_sha256 = job_table(dataset.train, read_folds(file)), sha256_file(file)
    for fold in folds:
        record = read_run(name, scheme, model, fold)
        if record["folds_sha256"] != folds_sha256:
            raise UserError(
                f"{file} has changed since fold {fold} of {model} was trained, so nothing "
                "says which rows it never saw: put the file back, or train again (--overwrite)"
            )
        sha256 = record["checkpoint_sha256"]
        order = Order(check_checkpoint(record), sha256, arguments.engine, arguments.precision)
        if is_exported(order) and not arguments.overwrite:
            print(f"{model} fold {fold}: exported already, skipped (--overwrite exports it again)")
            continue
        seen = (table["fold"] != fold).to_numpy()
        unseen = ~seen if fold != paths.ALL else seen  # a refit saw everything
        held, pixels = read_items(order, dataset.root, table, unseen, arguments.items)
        _, calibration = read_items(order, dataset.root, table, seen, CALIBRATION)
        check = export_checkpoint(order, pixels, table["label"].to_numpy()[held], calibration)
        _report(f"{model} fold {fold}", order, check, fold)


def _finished(dataset: str, scheme: str, model: str, wanted: str | None) -> list[paths.FoldName]:
    """Return the folds to export; raises where they are not trained."""
    home = paths.run_dir(dataset, scheme, model)
    names = sorted(path.stem.removeprefix("fold_") for path in home.glob("fold_*.safetensors"))
    found = [name for name in names if name == paths.ALL or name.isdigit()]  # no stage's
    train = f"python train_folds.py --model {model} --data {dataset}"
    if not found:
        raise UserError(f"{model} has no checkpoint for {dataset}/{scheme}: {train}")
    if wanted is not None and wanted not in found:
        raise UserError(
            f"fold {wanted} of {model} has no checkpoint (there are: {', '.join(found)}): {train} "
            f"--fold {wanted}"
        )
    chosen = found if wanted is None else [wanted]
    return [fold if fold == paths.ALL else int(fold) for fold in chosen]


def _report(what: str, order: Order, check: dict[str, float], fold: paths.FoldName) -> None:
    items = "training items (a refit holds none out)" if fold == paths.ALL else "held-out items"
    print(f"{what}: {order.engine} {order.precision} -> {order.path}")
    print(
        f"  on {check['items']} {items}: AUC {check['auc']:.4f} (eager {check['auc_eager']:.4f}), "
        f"macro-F1 at 0.5 {check['macro_f1']:.4f} (eager {check['macro_f1_eager']:.4f}: "
        f"{check['macro_f1'] - check['macro_f1_eager']:+.4f}), logits differ by at most "
        f"{check['max_logit_difference']:.2g} (their standard deviation: "
        f"{check['logit_spread']:.2g})"
    )


def run_bundle(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    dataset = choose_tunable(arguments.data, None)
    name = choose_recipe(dataset, arguments.recipe)
    show_log()
    target = bundle_output(arguments.output, dataset, name)
    recipe, rules = read_recipe(recipe_path(dataset, name)), dataset_config(dataset, None).rules
    timed = hours_of(recipe, rules) is not None
    items = count_test_items(dataset, None) if timed else None
    if timed:
        print(line_on_hours(recipe, rules, items))
    contents = collect(name, recipe, items)
    for kind, (count, size) in contents.sizes().items():
        print(f"{kind:<12} {count:>4} files {_megabytes(size):>12}")
    for note in contents.notes:
        print(note)
    size = write_bundle(target, contents)
    print(f"{target}: {_megabytes(size)}, {len(contents.parts)} checkpoints")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


main = partial(parsers.main, "export")
