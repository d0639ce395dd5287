"""What `predict_ensemble.py` says of a submission: its sidecar, and its last lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src import paths
from src.cli.recipes import recipe_path


def prevalence_of(dataset: str, scheme: str) -> float:
    """Return the share of fakes among the scored train items."""
    from src.artifacts.folds import read_folds

    folds = read_folds(paths.readable(paths.folds_csv(dataset, scheme)))
    return float(folds.loc[folds["fold"] >= 0, "label"].mean())


def make_sidecar(
    recipe_name: str,
    recipe: Any,  # noqa: ANN401
    parts: Sequence[Any],
    manifest_sha256: str,
    preds: Any,  # noqa: ANN401
    fallback: list[str],
    prevalence: float,
) -> dict[str, Any]:
    """Return what a submission was made from, for the JSON beside it."""
    from src.artifacts.files import sha256_file
    from src.ensemble.extra import is_extra, read_extra_record

    names = [(recipe.dataset, recipe.scheme, m.model) for m in recipe.members if m.weight != 0]
    return {
        "recipe": recipe_name,
        "recipe_sha256": sha256_file(recipe_path(recipe.dataset, recipe_name)),
        "dataset": recipe.dataset,
        "manifest_sha256": manifest_sha256,
        "scheme": recipe.scheme,
        "stages": recipe.stages,
        "members": {member.model: member.weight for member in recipe.members},
        "checkpoints": {f"{part.model} fold {part.fold}": part.checkpoint_sha256 for part in parts},
        "extras": {
            name[2]: read_extra_record(*name)["kept_sha256"] for name in names if is_extra(*name)
        },
        "scores": recipe.scores,
        "rows": len(preds),
        "share_fake": float(preds.mean()),
        "fallback": {
            "items": fallback,
            "prob": prevalence,
            "why": "not decodable; got the share of fakes among the training items",
        },
    }


def print_partial(partial: Mapping[str, str]) -> None:
    """Print the files that were read only in part, or under another kind's name, and why."""
    if partial:
        shown = "; ".join(f"{item}: {why}" for item, why in list(partial.items())[:10])
        more = " ..." if len(partial) > 10 else ""
        print(f"{len(partial)} not read as a whole: {shown}{more}")


def print_faceless(items: Sequence[str]) -> None:
    """Print the items of which the whole picture stood for the face that was not found."""
    if items:
        shown = ", ".join(items[:10]) + (" ..." if len(items) > 10 else "")
        print(f"{len(items)} show no face, so the whole picture was judged: {shown}")


def print_result(
    path: Path,
    votes: Any,  # noqa: ANN401
    fallback: list[str],
    prevalence: float,
    fake: str,
) -> None:
    """Print the shares of fakes by their name, what got the fallback, where the answer lies."""
    share = votes["pred"].mean()
    print(f"{len(votes)} items, {share:.1%} {fake} (training items: {prevalence:.1%})")
    if fallback:
        shown = ", ".join(fallback[:10]) + (" ..." if len(fallback) > 10 else "")
        print(f"{len(fallback)} could not be read and got the fallback: {shown}")
    print(f"submission: {path}")
