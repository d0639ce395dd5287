"""Predictions of the test items: which checkpoints they want, which are there, what they say.

This module loads no torch, so that another recipe over the same predictions votes in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from src import paths
from src.artifacts.files import sha256_json
from src.artifacts.oof import (
    MIRRORED,
    Levels,
    read_views,
    read_views_metadata,
    split_delivery,
    write_views,
)
from src.artifacts.recipes import Member, Recipe, check_recipe_fresh
from src.artifacts.runs import check_checkpoint, has_run, read_run
from src.data.items.contents import contents_sha256
from src.data.items.dataset_yaml import part_of, says_cropped
from src.ensemble.extra import is_extra, read_extra_test
from src.ensemble.rule import fold_curves_of, rule_of
from src.errors import UserError
from src.texts import Texts

if TYPE_CHECKING:
    from src.data.items.manifest import Dataset


MEANS = ("precision", "engine", "one_view")  # by which predictions were made


@dataclass(frozen=True)
class Part:
    """The predictions of some items by one checkpoint."""

    model: str  # name of the member
    fold: paths.FoldName  # the fold its checkpoint held out; `all` for a refit
    checkpoint: Path  # the weights
    checkpoint_sha256: str  # of that file, as its run record says
    views: Path  # where its predictions lie or will lie
    one_view: bool = False  # whether mirror images are left out
    levels: Levels | None = None  # at which the pictures are delivered; None as they are

    def unfinished(self, items: "ItemsToPredict") -> Path:
        """Return where an unfinished pass over items keeps its rows."""
        delivered = "" if self.levels is None else ".delivered"
        name = f"{self.checkpoint_sha256}.{items.manifest_sha256[:16]}{delivered}"
        return paths.partial_views(name)


@dataclass(frozen=True)
class ItemsToPredict:
    """The items to predict."""

    __test__ = False  # not a pytest class

    root: Path  # folder of the data set
    item_ids: Sequence[str]  # ids, sorted
    paths: Sequence[str]  # manifest paths, in the same order
    manifest_sha256: str  # fingerprint of the data set they belong to


def items_to_predict(dataset: "Dataset") -> ItemsToPredict:
    """Return the test items of a data set; raises UserError where there are none."""
    dataset.require_test()
    test = dataset.test
    return ItemsToPredict(
        dataset.root,
        Texts(test["item_id"]),
        Texts(test["path"]),
        fingerprint_items(dataset, test),
    )


def fingerprint_items(dataset: "Dataset", table: pd.DataFrame) -> str:
    """Return what tells rows of a manifest from all that would be predicted otherwise.

    Sizes alone would not tell one uncompressed picture from another put in its place. What the
    files hold does, and predictions still fit a copy of the data set on another machine. Where
    items are faces already, a model that crops sees others then.
    """
    elsewhere = table["path"].str.startswith("../")
    parts = sorted({part_of(path) for path in table["path"][elsewhere]})
    parts += [] if elsewhere.all() else [""]
    cropped = [part for part in parts if says_cropped(dataset.root, part)]
    marks = ["cropped", *filter(None, cropped)] if cropped else []
    return sha256_json([dataset.sha256, contents_sha256(dataset, table), *marks])


def check_recipe(recipe: Recipe, folds: Sequence[paths.FoldName] | None = None) -> list[Part]:
    """Check all that predicting with a recipe rests on, but for the items; see `needed_parts`.

    Before hours of predicting, and where a bundle is packed.

    Raises:
        UserError: a fold file, an OOF file, a checkpoint or a record is gone or not the one that
            was tuned on; test predictions from elsewhere are not those that were imported; a stage
            that this version does not know.
    """
    check_recipe_fresh(recipe)
    rule_of(recipe)
    for member in recipe.members:
        if member.weight and is_extra(recipe.dataset, recipe.scheme, member.model):
            read_extra_test(recipe.dataset, recipe.scheme, member.model)
    return needed_parts(recipe, folds)


def needed_parts(recipe: Recipe, folds: Sequence[paths.FoldName] | None = None) -> list[Part]:
    """Return the checkpoints that a recipe's members predict with; `folds` as in `Recipe.runs`.

    Members of no weight, and those whose predictions came from elsewhere (`tune.py --extra`), need
    none.

    Raises:
        UserError: a run is not finished, or its checkpoint is gone; a fold for which the recipe
            has no curve (`fold_curves_of`).
    """
    parts, curves = [], fold_curves_of(recipe)
    for member, fold in recipe.runs(folds):
        if str(fold) not in curves.get(member.model, {str(fold): None}):
            raise UserError(
                f"the recipe calibrates the model of each fold of {member.model} on the rows that "
                f"it held out, and knows nothing of fold {fold}"
                + (": predict without --refit" if fold == paths.ALL else ": run tune.py again")
            )
        names = (recipe.dataset, recipe.scheme, member.model, fold)
        if is_extra(*names[:3]):
            continue
        for file in (paths.checkpoint(*names), paths.run_record(*names)):
            if not paths.readable(file).is_file():
                raise UserError(_not_there(file, recipe, member, fold))
        record = read_run(*names)
        sha = record["checkpoint_sha256"]
        tuned_on = member.checkpoint_sha256.get(str(fold))
        wanted = member.oof_sha256 and fold != paths.ALL
        if (wanted or tuned_on is not None) and tuned_on != sha:
            raise UserError(
                f"fold {fold} of {member.model} is not the checkpoint whose out-of-fold "
                "predictions the recipe was tuned on: it was trained again, or copied from "
                f"another run; run tune.py --data {recipe.dataset} again"
            )
        weights = check_checkpoint(record)
        views = paths.test_views(*names)
        parts.append(Part(member.model, fold, weights, sha, views, recipe.one_view))
    return parts


def _not_there(file: Path, recipe: Recipe, member: Member, fold: paths.FoldName) -> str:
    """Say what makes a member's checkpoint that is gone, and what to do without it."""
    model = member.model
    names = (recipe.dataset, recipe.scheme, model)
    there = [one for one in member.folds if has_run(*names, one)]
    if there:
        is_merge = bool(read_run(*names, there[0])["merged_from"])
    else:
        is_merge = any((at / f"{model}.yaml").is_file() for at in paths.config_dirs("merges"))
    maker = f"-m src merge {model}" if is_merge else f"train_folds.py --model {model}"
    other = "predict without --refit"
    if fold != paths.ALL:
        other = "tune without that member (--models)"
    return (
        f"{file} is not there, and the recipe predicts with it; make it: python {maker} --fold "
        f"{fold} --data {recipe.dataset} --overwrite, or {other}"
    )


def stored_predictions(
    part: Part, items: ItemsToPredict, precision: str = "auto", engine: str | None = None
) -> pd.DataFrame | None:
    """Return a checkpoint's predictions if they are complete and of these weights and items.

    Those of another `--precision` or `--engine` than asked for do not count, nor those without
    mirror images where they are wanted; where they are not, they are left out.
    """
    try:
        views, metadata = read_views(part.views)
    except UserError:
        return None  # not there, or damaged: predicted again
    there, wanted = Texts(views["item_id"].drop_duplicates()), Texts(items.item_ids)
    complete = there == wanted or (len(there) == len(wanted) and (there.find(wanted) >= 0).all())
    if not complete or not _is_of(metadata, part, items, precision, engine):
        return None
    return views[~views["view"].str.endswith(MIRRORED)] if part.one_view else views


def _is_of(
    metadata: dict[str, Any],
    part: Part,
    items: ItemsToPredict,
    precision: str,
    engine: str | None,
) -> bool:
    """Tell whether predictions are of these weights and items, and made as asked for."""
    return (
        metadata.get("checkpoint_sha256") == part.checkpoint_sha256
        and metadata.get("manifest_sha256") == items.manifest_sha256
        and precision in ("auto", metadata.get("precision"))
        and engine in (None, metadata.get("engine"))
        and (part.one_view or not metadata.get("one_view"))
    )


def missing_levels(
    part: Part, items: ItemsToPredict, precision: str = "auto", engine: str | None = None
) -> tuple[str, ...]:
    """Return the levels of a part that its stored predictions lack; see `stored_predictions`."""
    assert part.levels is not None
    metadata = metadata_of(part)
    means = metadata.get("means", {})
    return tuple(
        name
        for name in part.levels.names
        if name not in means or not _is_of(metadata | means[name], part, items, precision, engine)
    )


def lacking_levels(
    parts: Sequence[Part],
    items: ItemsToPredict,
    precision: str = "auto",
    engine: str | None = None,
) -> list[Part]:
    """Return the parts whose stored predictions lack levels, each at these alone."""
    lacking = []
    for part in parts:
        names = missing_levels(part, items, precision, engine)
        if names and part.levels is not None:
            lacking.append(replace(part, levels=part.levels._replace(names=names)))
    return lacking


def add_delivered(part: Part, views: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Store predictions at a part's levels, beside those at others, by whatever means.

    Only predictions of other weights or items are replaced by them, or of the same levels.

    Args:
        part: whose they are.
        views: `VIEW_COLUMNS`, named with their levels.
        metadata: what they were made from, but for the levels.
    """
    assert part.levels is not None
    names, before = list(part.levels.names), metadata_of(part)
    own = {key: metadata[key] for key in MEANS if key in metadata}
    means = dict.fromkeys(names, own)
    if all(metadata[key] == before.get(key) for key in ("checkpoint_sha256", "manifest_sha256")):
        known = read_views(part.views)[0]
        level = known["view"].map({v: split_delivery(v)[0] for v in known["view"].unique()})
        views = pd.concat([known[~level.isin(names)], views], ignore_index=True)
        views = views.drop_duplicates(["item_id", "view"], keep="last")
        names = list(dict.fromkeys([*before["levels"], *names]))
        means = before["means"] | means
    rest = {key: value for key, value in metadata.items() if key not in MEANS}
    kept = rest | {"levels": names, "means": means, "seed": part.levels.seed}
    write_views(part.views, views, kept)


def as_delivered(part: Part, levels: Levels) -> Part:
    """Return the predictions of the same items by the same checkpoint, delivered at levels."""
    return replace(part, views=paths.delivered(part.views, levels.seed), levels=levels)


def partly_read(parts: Sequence[Part]) -> dict[str, str]:
    """Return item_id -> what is wrong, of test items that were read only in part."""
    found: dict[str, str] = {}
    for part in parts:
        found |= metadata_of(part).get("partial", {})
    return dict(sorted(found.items()))


def without_face(parts: Sequence[Part]) -> list[str]:
    """Return the test items in which a model that crops faces found none: it saw all of them."""
    return sorted({item for part in parts for item in metadata_of(part).get("no_face", [])})


def engines_of(parts: Sequence[Part]) -> dict[str, str]:
    """Return by what each checkpoint's predictions were made: engine and precision."""
    found = {f"{part.model} fold {part.fold}": metadata_of(part) for part in parts}
    return {
        name: f"{made['engine']} {made['precision']}"
        for name, made in found.items()
        if "engine" in made
    }


def metadata_of(part: Part) -> dict[str, Any]:
    """Return what a part's stored predictions were made from; empty where there are none."""
    try:
        return read_views_metadata(part.views)
    except UserError:
        return {}  # none: whoever wants its predictions will say so
