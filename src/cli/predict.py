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
    choose_dataset,
    run_command,
    show_log,
)
from src.errors import UserError, unknown_name

DESCRIPTION = """Vote with a tuned recipe and write submissions/<data set>/<recipe>.csv.

  python predict_ensemble.py                      the recipe that tune.py wrote
  python predict_ensemble.py --recipe hard        another one: no model runs a second time
  python predict_ensemble.py --checkpoint FILE --input-dir DIR --output out.csv
                          any folder of images, without recipe or data set"""


def make_parser() -> Parser:
    """Return the parser of `predict_ensemble.py`."""
    parser = Parser(DESCRIPTION, prog="predict_ensemble.py")
    add_data_arguments(parser, scheme=False)
    parser.add_argument("--recipe", metavar="NAME", help="default: tuned, or the only one")
    parser.add_argument("--overwrite", action="store_true", help="predict the test items again")
    add_compute_arguments(parser)
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
    if not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold {arguments.threshold}: want a probability, 0 to 1")
    show_log()
    if given:
        from src.cli.predict_folder import predict_folder

        predict_folder(arguments)
    else:
        _predict_dataset(arguments)


def _choose_recipe(dataset: str, wanted: str | None) -> str:
    home = paths.recipe_dir(dataset)
    names = sorted(path.stem for path in home.glob("*.json")) if home.is_dir() else []
    if not names:
        raise UserError(f"{dataset} has no recipe yet: python tune.py makes one")
    if wanted is not None and wanted not in names:
        raise unknown_name("recipe", wanted, names)
    if wanted is not None or len(names) == 1:
        return wanted or names[0]
    if "tuned" in names:
        return "tuned"
    raise UserError(
        f"{dataset} has {len(names)} recipes, say which: --recipe {{{','.join(names)}}}"
    )


def _predict_dataset(arguments: Namespace) -> None:
    from src.artifacts.files import sha256_json
    from src.artifacts.recipes import check_recipe_fresh, read_recipe
    from src.artifacts.submissions import write_submission
    from src.data.layouts import load_dataset
    from src.ensemble.vote import apply_recipe, pool_views
    from src.training import fill

    name = choose_dataset(arguments.data, arguments.input_root)
    recipe_name = _choose_recipe(name, arguments.recipe)
    recipe = read_recipe(paths.recipe_json(name, recipe_name))
    check_recipe_fresh(recipe)
    dataset = load_dataset(name, arguments.input_root)
    layout = dataset.require_test()
    test = dataset.test
    # Sizes alone would not tell one uncompressed picture from another put in its place.
    stamps = [stamp for stamp, split in zip(dataset.stamps, dataset.items["split"], strict=True)
              if split == "test"]  # fmt: skip
    manifest_sha256 = sha256_json([dataset.sha256, [str(stamp) for stamp in stamps]])
    items = fill.TestItems(
        dataset.root, test["item_id"].tolist(), test["path"].tolist(), manifest_sha256
    )
    parts = fill.needed_parts(recipe)
    known = (
        {}
        if arguments.overwrite
        else {part: fill.stored_predictions(part, items, arguments.precision) for part in parts}
    )
    missing = [part for part in parts if known.get(part) is None]
    print(f"{recipe_name}: {len(parts)} checkpoints, {len(missing)} of them to predict with")
    if missing:
        fill.predict_parts(missing, items, arguments.device, arguments.precision, arguments.workers)
    logits = {}
    for model in dict.fromkeys(part.model for part in parts):
        views = [fill.stored_predictions(part, items) for part in parts if part.model == model]
        logits[model] = pool_views(_concat(views))
    prevalence = _prevalence(recipe.dataset, recipe.scheme)
    votes = apply_recipe(recipe, logits, prevalence).set_index("item_id")
    fallback = votes.index[votes["fallback"]].tolist()
    path = paths.submission_csv(name, recipe_name)
    sidecar = _sidecar(
        recipe_name, recipe, parts, dataset.sha256, votes["pred"], fallback, prevalence
    )
    write_submission(path, layout, votes["pred"], sidecar)
    _report(path, votes, fallback, prevalence)


def _concat(views: Sequence[Any]) -> Any:  # noqa: ANN401 - data frames, loaded lazily
    import pandas as pd

    return pd.concat(views, ignore_index=True)


def _prevalence(dataset: str, scheme: str) -> float:
    from src.artifacts.folds import read_folds

    folds = read_folds(paths.folds_csv(dataset, scheme))
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
        "recipe_sha256": sha256_file(paths.recipe_json(recipe.dataset, recipe_name)),
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
