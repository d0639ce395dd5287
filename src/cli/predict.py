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
    choose_recipe,
    recipe_path,
    run_command,
    show_log,
)
from src.compute.clock import Clock, TimeUpError
from src.errors import UserError

DESCRIPTION = """Vote with a tuned recipe and write submissions/<data set>/<recipe>.csv.

  python predict_ensemble.py                      the recipe that tune.py wrote
  python predict_ensemble.py --recipe hard        another one: no model runs a second time
  python predict_ensemble.py --refit              each member by the one model that was trained on
                          every row (train_folds.py --fold all), not by its folds' mean
  python predict_ensemble.py --vote a.csv b.csv c.csv --output voted.csv
                          the majority of submission files
  python predict_ensemble.py --checkpoint FILE --input-dir DIR --output out.csv
                          any folder of images and videos (or one file), without recipe or data set
  python predict_ensemble.py --checkpoint detector.pth --model NAME --input-dir DIR --output out.csv
                          a detector from elsewhere; --fake-index 0|1 where the file does not say
                          which class is fake"""

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
    parser.add_argument(
        "--prior", metavar="SHARE",
        help="share of fakes among the test items: em or bbse estimate it; moves the threshold",
    )  # fmt: skip
    files = parser.add_argument_group("submission files alone")
    files.add_argument(
        "--vote", nargs="+", metavar="FILE", help="majority of these CSVs, or of a YAML's list"
    )
    files.add_argument("--vote-weights", nargs="+", type=float, metavar="W", help="one a file")
    folder = parser.add_argument_group("any folder")
    folder.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="fold_K.safetensors; several: mean",
    )
    folder.add_argument(
        "--model", metavar="NAME", help="net of checkpoints from elsewhere: a config, or timm:NAME"
    )
    folder.add_argument(
        "--fake-index", type=int, choices=[0, 1],
        help="with --model: the class that is fake; of one output, 1 where positive is fake",
    )  # fmt: skip
    folder.add_argument(
        "--input-dir", type=Path, metavar="DIR",
        help="images and videos, searched recursively; or one file",
    )  # fmt: skip
    folder.add_argument("--output", type=Path, metavar="CSV", help="where to write the answers")
    folder.add_argument("--prob", action="store_true", help="write P(fake) as a third column too")
    folder.add_argument("--threshold", type=float, default=0.5, help="on P(fake); default 0.5")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    any_folder = _check_arguments(arguments)
    show_log()
    if arguments.vote is not None:
        from src.cli.predict_votes import vote_on_files

        vote_on_files(arguments)
        return
    if any_folder:
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


def _check_arguments(arguments: Namespace) -> bool:
    """Raise for flags that do not go together; returns whether any folder is to be predicted."""
    if arguments.fit_in_time and arguments.max_hours is None:
        raise UserError("--fit-in-time wants --max-hours H too")
    if not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold {arguments.threshold}: want a probability, 0 to 1")
    folder = {
        "--checkpoint": arguments.checkpoint,
        "--input-dir": arguments.input_dir,
        "--output": arguments.output,
    }
    given = [flag for flag, value in folder.items() if value is not None]
    _check_folder_only(arguments, [flag for flag in folder if flag not in given])
    if arguments.vote is not None:
        return False
    if arguments.vote_weights is not None:
        raise UserError("--vote-weights wants --vote FILE FILE ...")
    if given and len(given) < len(folder):
        lacking = [flag for flag in folder if flag not in given]
        raise UserError(f"{' and '.join(given)} want {' and '.join(lacking)} too")
    recipe_only = {
        "--max-hours": (arguments.max_hours, "is about a recipe's members; any folder is whole"),
        "--refit": (arguments.refit or None, "is about a recipe's members; name the weights"),
        "--prior": (arguments.prior, "moves a recipe's threshold; any folder has --threshold"),
    }
    for flag, (value, why) in recipe_only.items():
        if given and value is not None:
            raise UserError(f"{flag} {why}")
    return bool(given)


def _check_folder_only(arguments: Namespace, lacking: Sequence[str]) -> None:
    """Raise for flags that only say something beside `lacking`, or beside each other."""
    if arguments.fake_index is not None and arguments.model is None:
        raise UserError(
            "--fake-index is about a detector from elsewhere: it wants --model NAME, the net that "
            "the file holds, and --checkpoint FILE"
        )
    only = {"--model": arguments.model, "--prob": arguments.prob or None}
    for flag, value in only.items():
        if value is not None and lacking:
            raise UserError(f"{flag} is about any folder: it wants {' and '.join(lacking)} too")


def _predict_dataset(arguments: Namespace, clock: Clock) -> None:
    from src.artifacts.outputs import check_submission
    from src.artifacts.recipes import read_recipe
    from src.cli.predict_in_time import fill_in_time
    from src.data.layouts.load import load_dataset
    from src.ensemble.prior import parse_prior
    from src.inference import stored

    prior = None if arguments.prior is None else parse_prior(arguments.prior)
    name = choose_dataset(arguments.data, arguments.input_root)
    recipe_name = choose_recipe(name, arguments.recipe)
    recipe = read_recipe(recipe_path(name, recipe_name))
    parts = _checked_parts(recipe, refit=arguments.refit)
    name_out = _submission_name(name, recipe_name, refit=arguments.refit)
    path = paths.submission_csv(name, name_out)
    check_submission(path, "recipe")
    dataset = load_dataset(name, arguments.input_root)
    dataset.require_test()
    items = stored.items_to_predict(dataset)
    missing = _missing(parts, items, arguments)
    print(f"labels: {dataset.labels.polarity}")
    print(f"{recipe_name}: {len(parts)} checkpoints, {len(missing)} of them to predict with")
    left_out = fill_in_time(missing, items, recipe, arguments, clock)
    parts = [part for part in parts if part not in left_out]
    extras: dict[str, Any] = {}
    if arguments.refit:
        extras["refit"] = REFIT
        print(f"refit: {REFIT}")
    if left_out:
        extras |= _left_out(left_out)
    _vote(path, recipe_name, recipe, dataset, items, parts, prior, extras)


def _left_out(left_out: Sequence[Any]) -> dict[str, Any]:
    from src.cli.predict_in_time import LEFT_OUT, names_of

    print(f"left out: {', '.join(names_of(left_out))}; {LEFT_OUT}")
    return {"left_out": {"checkpoints": names_of(left_out), "why": LEFT_OUT}}


def _vote(
    path: Path,
    recipe_name: str,
    recipe: Any,  # noqa: ANN401
    dataset: Any,  # noqa: ANN401
    items: Any,  # noqa: ANN401
    parts: Sequence[Any],
    prior: str | float | None,
    extras: dict[str, Any],
) -> None:
    """Vote on predicted items and write the submission with its sidecar."""
    from src.artifacts.submissions import write_submission
    from src.cli.printing.predict import (
        make_sidecar,
        prevalence_of,
        print_faceless,
        print_partial,
        print_result,
    )
    from src.ensemble.vote import apply_recipe
    from src.inference.stored import member_logits, partly_read, without_face
    from src.inference.unfinished import without

    recipe = without(recipe, parts)
    if not any(member.weight for member in recipe.members):
        raise UserError("no checkpoint's predictions fit into the time that is left")
    logits = member_logits(recipe, parts, items)
    prevalence = prevalence_of(recipe.dataset, recipe.scheme)
    if prior is not None:
        from src.cli.predict_in_time import shift_recipe

        recipe, extras["prior"] = shift_recipe(recipe, logits, prior)
    values = dataset.test.set_index("item_id")[["kind", "domain"]]
    votes = apply_recipe(recipe, logits, prevalence, values).set_index("item_id")
    fallback = votes.index[votes["fallback"]].tolist()
    sidecar = make_sidecar(
        recipe_name, recipe, parts, dataset.sha256, votes["pred"], fallback, prevalence
    )
    sidecar["partial"] = partial = partly_read(parts)
    sidecar["no_face"] = faceless = without_face(parts)
    write_submission(path, dataset.require_test(), votes["pred"], sidecar | extras)
    print_partial(partial)
    print_faceless(faceless)
    print_result(path, votes, fallback, prevalence, dataset.labels.names[1])


def _missing(parts: Sequence[Any], items: Any, arguments: Namespace) -> list[Any]:  # noqa: ANN401
    """Return the checkpoints whose predictions are not there, or not as asked for."""
    from src.inference.stored import stored_predictions

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
            f"{name!r}: make that one under another name (tune.py --recipe NAME) and remove "
            f"{paths.recipe_json(dataset, name)}"
        )
    return name


def _checked_parts(recipe: Any, *, refit: bool) -> list[Any]:  # noqa: ANN401
    from src.inference import stored

    if not refit:
        return stored.check_recipe(recipe)
    from src.training.plan import check_refits

    check_refits(recipe)
    return stored.check_recipe(recipe, [paths.ALL])


def main(argv: Sequence[str] | None = None) -> int:
    """Run `predict_ensemble.py`; returns the exit code."""
    return run_command(_run, argv)
