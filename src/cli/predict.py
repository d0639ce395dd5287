"""`predict_ensemble.py`: fill in missing test predictions, vote, write the checked submission."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src import paths
from src.cli.common import (
    Parser,
    add_compute_arguments,
    add_data_arguments,
    add_time_argument,
    choose_dataset,
    run_command,
    show_log,
)
from src.cli.recipes import choose_recipe, recipe_path
from src.errors import UserError
from src.training.clock import Clock, TimeUpError

DESCRIPTION = """Vote with a tuned recipe and write submissions/<data set>/<recipe>.csv.

  python predict_ensemble.py                      the recipe that tune.py wrote
  python predict_ensemble.py --recipe hard        another one: no model runs a second time
  python predict_ensemble.py --refit              each member by the one model that was trained on
                          every row (train_folds.py --fold all), not by its folds' mean
  python predict_ensemble.py --checkpoint FILE --input-dir DIR --output out.csv
                          any folder of images, without recipe or data set"""

REFIT = (
    "weights and thresholds are the recipe's, tuned on the members' folds; models trained on "
    "every row have no out-of-fold predictions, so the recipe's scores are of the folds' models"
)


def make_parser() -> Parser:
    """Return the parser of `predict_ensemble.py`."""
    parser = Parser(DESCRIPTION, prog="predict_ensemble.py")
    add_data_arguments(parser, scheme=False)
    parser.add_argument("--recipe", metavar="NAME", help="default: tuned, or the only one")
    parser.add_argument(
        "--refit", action="store_true", help="members' fold_all checkpoints -> <recipe>_refit.csv"
    )
    parser.add_argument("--overwrite", action="store_true", help="predict the test items again")
    add_compute_arguments(parser, "int8")
    parser.add_argument(
        "--engine", choices=["eager", "onnx", "openvino"],
        help="what runs the models; others than eager want python -m src export",
    )  # fmt: skip
    add_time_argument(parser, "refuse early if the predictions would take longer")
    parser.add_argument(
        "--fit-in-time", action="store_true",
        help="with --max-hours: rather vote without the members of the lowest weight",
    )  # fmt: skip
    folder = parser.add_argument_group("any folder")
    folder.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="fold_K.safetensors; several: mean",
    )
    folder.add_argument(
        "--input-dir", type=Path, metavar="DIR", help="images, searched recursively"
    )
    folder.add_argument("--output", type=Path, metavar="CSV", help="where to write the answers")
    folder.add_argument("--threshold", type=float, default=0.5, help="on P(fake); default 0.5")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    folder = {
        "--checkpoint": arguments.checkpoint,
        "--input-dir": arguments.input_dir,
        "--output": arguments.output,
    }
    given = [flag for flag, value in folder.items() if value is not None]
    if given and len(given) < len(folder):
        lacking = [flag for flag in folder if flag not in given]
        raise UserError(f"{' and '.join(given)} want {' and '.join(lacking)} too")
    if arguments.fit_in_time and arguments.max_hours is None:
        raise UserError("--fit-in-time wants --max-hours H too")
    if given and arguments.max_hours is not None:
        raise UserError("--max-hours is about a recipe's members; any folder is predicted whole")
    if given and arguments.refit:
        raise UserError("--refit is about a recipe's members; --checkpoint names the weights")
    if not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold {arguments.threshold}: want a probability, 0 to 1")
    show_log()
    if given:
        from src.cli.predict_folder import predict_folder

        predict_folder(arguments)
        return
    clock = Clock(arguments.max_hours)
    try:
        with clock.running():
            _predict_dataset(arguments, clock)
    except TimeUpError as end:
        raise UserError(
            f"{end}, and no submission was written; what is predicted by now is kept, and the same "
            "command (without --overwrite) goes on from here"
        ) from None


def _predict_dataset(arguments: Namespace, clock: Clock) -> None:
    from src.artifacts.recipes import check_recipe_fresh, read_recipe
    from src.artifacts.submissions import write_submission
    from src.cli.predict_in_time import LEFT_OUT, fill_in_time, names_of
    from src.data.layouts import load_dataset
    from src.ensemble.vote import apply_recipe, pool_views
    from src.training import fill
    from src.training.pace import without

    name = choose_dataset(arguments.data, arguments.input_root)
    recipe_name = choose_recipe(name, arguments.recipe)
    recipe = read_recipe(recipe_path(name, recipe_name))
    check_recipe_fresh(recipe)
    name_out = _submission_name(name, recipe_name, refit=arguments.refit)
    dataset = load_dataset(name, arguments.input_root)
    layout = dataset.require_test()
    items = fill.items_to_predict(dataset)
    parts = _needed_parts(recipe, refit=arguments.refit)
    missing = _missing(parts, items, arguments)
    print(f"{recipe_name}: {len(parts)} checkpoints, {len(missing)} of them to predict with")
    left_out = fill_in_time(missing, items, recipe, arguments, clock)
    parts = [part for part in parts if part not in left_out]
    if not parts:
        raise UserError("no checkpoint's predictions fit into the time that is left")
    recipe = without(recipe, parts)
    logits = {}
    for model in dict.fromkeys(part.model for part in parts):
        views = [fill.stored_predictions(part, items) for part in parts if part.model == model]
        logits[model] = pool_views(_concat(views))
    prevalence = _prevalence(recipe.dataset, recipe.scheme)
    votes = apply_recipe(recipe, logits, prevalence).set_index("item_id")
    fallback = votes.index[votes["fallback"]].tolist()
    path = paths.submission_csv(name, name_out)
    sidecar = _sidecar(
        recipe_name, recipe, parts, dataset.sha256, votes["pred"], fallback, prevalence
    )
    if arguments.refit:
        sidecar["refit"] = REFIT
        print(f"refit: {REFIT}")
    if left_out:
        sidecar["left_out"] = {"checkpoints": names_of(left_out), "why": LEFT_OUT}
        print(f"left out: {', '.join(names_of(left_out))}; {LEFT_OUT}")
    write_submission(path, layout, votes["pred"], sidecar)
    _report(path, votes, fallback, prevalence)


def _missing(parts: Sequence[Any], items: Any, arguments: Namespace) -> list[Any]:  # noqa: ANN401
    """Return the checkpoints whose predictions are not there, or not as asked for."""
    from src.training.fill import stored_predictions

    if arguments.overwrite:
        for part in parts:
            paths.partial_views(part.checkpoint_sha256).unlink(missing_ok=True)
        return list(parts)
    wanted = (arguments.precision, arguments.engine)
    return [part for part in parts if stored_predictions(part, items, *wanted) is None]


def _submission_name(dataset: str, recipe_name: str, *, refit: bool) -> str:
    """Return the submission's name; raises where another recipe's would be written over."""
    if not refit:
        return recipe_name
    name = f"{recipe_name}_refit"
    if paths.recipe_json(dataset, name).exists():
        raise UserError(
            f"--refit writes {paths.submission_csv(dataset, name)}, and so does the recipe "
            f"{name!r}: rename {paths.recipe_json(dataset, name)}"
        )
    return name


def _needed_parts(recipe: Any, *, refit: bool) -> list[Any]:  # noqa: ANN401
    from src.training import fill

    if not refit:
        return fill.needed_parts(recipe)
    from src.training.refit import check_refits

    check_refits(recipe)
    return fill.needed_parts(recipe, [paths.ALL])


def _concat(views: Sequence[Any]) -> Any:  # noqa: ANN401 - data frames, loaded lazily
    import pandas as pd

    return pd.concat(views, ignore_index=True)


def _prevalence(dataset: str, scheme: str) -> float:
    from src.artifacts.folds import read_folds

    folds = read_folds(paths.readable(paths.folds_csv(dataset, scheme)))
    return float(folds.loc[folds["fold"] >= 0, "label"].mean())


def _sidecar(
    recipe_name: str,
    recipe: Any,  # noqa: ANN401
    parts: Sequence[Any],
    manifest_sha256: str,
    preds: Any,  # noqa: ANN401
    fallback: list[str],
    prevalence: float,
) -> dict[str, Any]:
    from src.artifacts.files import sha256_file

    return {
        "recipe": recipe_name,
        "recipe_sha256": sha256_file(recipe_path(recipe.dataset, recipe_name)),
        "dataset": recipe.dataset,
        "manifest_sha256": manifest_sha256,
        "scheme": recipe.scheme,
        "stages": recipe.stages,
        "members": {member.model: member.weight for member in recipe.members},
        "checkpoints": {f"{part.model} fold {part.fold}": part.checkpoint_sha256 for part in parts},
        "scores": recipe.scores,
        "rows": len(preds),
        "share_fake": float(preds.mean()),
        "fallback": {
            "items": fallback,
            "prob": prevalence,
            "why": "not decodable; got the share of fakes among the training items",
        },
    }


def _report(path: Path, votes: Any, fallback: list[str], prevalence: float) -> None:  # noqa: ANN401
    share = votes["pred"].mean()
    print(f"{len(votes)} items, {share:.1%} fake (training items: {prevalence:.1%})")
    if fallback:
        shown = ", ".join(fallback[:10]) + (" ..." if len(fallback) > 10 else "")
        print(f"{len(fallback)} could not be read and got the fallback: {shown}")
    print(f"submission: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `predict_ensemble.py`; returns the exit code."""
    return run_command(_run, argv)
