"""`predict_ensemble.py`: a submission by a recipe, any folder's answers, or a vote of files."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from src.cli import parsers
from src.cli.common import show_log, taken
from src.cli.predict.submission import Predicting, predict
from src.cli.predict.votes import vote_on_files
from src.compute.clock import Clock
from src.compute.request import Compute
from src.errors import UserError

__all__ = ["Predicting", "main", "predict", "run_predict"]
HALF = 0.5  # the default of --threshold


def run_predict(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    any_folder = _check_arguments(arguments)
    show_log()
    if arguments.vote is not None:
        vote_on_files(arguments)
    elif any_folder:
        from src.cli.predict.folder import predict_folder  # torch, which votes do not need

        predict_folder(arguments)
    else:
        compute = taken(Compute, arguments, clock=Clock(arguments.max_hours))
        predict(arguments.data, taken(Predicting, arguments), compute)


def _check_arguments(arguments: Namespace) -> bool:
    """Raise for flags that do not go together; returns whether any folder is to be predicted."""
    if not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold {arguments.threshold}: want a probability, 0 to 1")
    by_recipe = arguments.recipe is not None and arguments.input_dir is not None
    folder = ["input_dir", "output"] if by_recipe else ["checkpoint", "input_dir", "output"]
    given = [_flag(name) for name in folder if getattr(arguments, name) is not None]
    lacking = [_flag(name) for name in folder if _flag(name) not in given]
    _check_folder_only(arguments, lacking)
    if arguments.vote is not None:
        return False
    if arguments.vote_weights is not None:
        raise UserError("--vote-weights wants --vote FILE FILE ...")
    if given and lacking:
        way = ", or --recipe NAME in its place" if lacking == ["--checkpoint"] else ""
        raise UserError(f"{' and '.join(given)} want {' and '.join(lacking)} too{way}")
    _check_kind(arguments)
    _check_recipe_only(arguments, any_folder=bool(given), by_recipe=by_recipe)
    return bool(given)


def _check_recipe_only(arguments: Namespace, *, any_folder: bool, by_recipe: bool) -> None:
    """Raise for flags about a recipe's members where any folder is judged, or by checkpoints."""
    recipe_only = {
        "max_hours": "is about a recipe's members; any folder is whole",
        "fit_in_time": "is about a recipe's members; any folder is whole",
        "refit": "is about a recipe's members; name the weights",
        "prior": "moves a recipe's threshold; any folder has --threshold",
    }
    for name, why in recipe_only.items():
        if any_folder and getattr(arguments, name) not in (None, False):
            raise UserError(f"{_flag(name)} {why}")
    if any_folder and not by_recipe and arguments.deliveries is not None:
        raise UserError("--deliveries sees what a recipe answers: it wants --recipe NAME")
    if arguments.risk is not None and not by_recipe:
        raise UserError(
            "--risk says which of a recipe's verdicts on any folder are sure: it wants --recipe "
            "NAME and --input-dir DIR (a submission never abstains)"
        )
    if by_recipe:
        for name, none in (("checkpoint", None), ("model", None), ("threshold", HALF)):
            if getattr(arguments, name) != none:
                raise UserError(f"{_flag(name)} and --recipe do not go together")


def _check_kind(arguments: Namespace) -> None:
    """Raise for flags that say nothing beside `--output-kind`, or the same."""
    kind = arguments.output_kind
    if kind in ("prob", "rank") and arguments.threshold != HALF:
        raise UserError(f"--threshold makes labels, and --output-kind {kind} writes none")
    if kind == "prob" and arguments.prob:
        raise UserError("--output-kind prob writes P(fake) already; leave --prob out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_folder_only(arguments: Namespace, lacking: Sequence[str]) -> None:
    """Raise for flags that only say something beside `lacking`, or beside each other."""
    if arguments.fake_index is not None and arguments.model is None:
        raise UserError(
            "--fake-index is about a detector from elsewhere: it wants --model NAME, the net that "
            "the file holds, and --checkpoint FILE"
        )
    for name in ("model", "prob"):
        if getattr(arguments, name) not in (None, False) and lacking:
            raise UserError(
                f"{_flag(name)} is about any folder: it wants {' and '.join(lacking)} too"
            )


main = partial(parsers.main, "predict")
