"""Files of any folder by a recipe: answered as it answers test items, by the same steps."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from src.artifacts.files import sha256_json
from src.artifacts.oof import Levels
from src.artifacts.recipes import Recipe
from src.compute.request import Compute
from src.data.items.files import kind_of
from src.data.items.listing import Listing
from src.ensemble.extra import is_extra
from src.ensemble.shift.stability import Stability, stability_of
from src.ensemble.vote import apply_recipe
from src.errors import UserError
from src.inference import stored
from src.inference.deliveries import deliver
from src.inference.member_logits import logits_at, member_logits
from src.inference.passes import predict_parts
from src.inference.stored import ItemsToPredict


class FolderVotes(NamedTuple):
    """What a recipe says of files."""

    votes: pd.DataFrame  # as `apply_recipe`, by item_id: the file's path; of `fallback` unreadable
    partial: dict[str, str]  # file -> what is wrong with one read only in part
    no_face: list[str]  # files that show no face to a member that crops them
    stability: Stability | None  # where files were seen at levels too
    checkpoints: dict[str, str]  # file of weights -> its SHA-256
    engines: dict[str, str]  # model and fold -> by which engine, in which precision


def items_of(root: Path, listing: Listing) -> ItemsToPredict:
    """Return the pictures and clips of a folder, sorted by path, which is their id."""
    entries = sorted(listing.media, key=lambda entry: entry.path)
    names = [entry.path for entry in entries]
    marks = sha256_json([[entry.path, entry.bytes, entry.stamp] for entry in entries])
    return ItemsToPredict(root, names, names, marks)


def vote_on_items(
    recipe: Recipe, items: ItemsToPredict, compute: Compute, levels: Levels | None = None
) -> FolderVotes:
    """Predict files with all members of a recipe and vote.

    Args:
        recipe: members and stages; their folds' checkpoints predict.
        items: the files (`items_of`).
        compute: where and how fast.
        levels: at which files are seen too (`levels_of`).

    Raises:
        UserError: a member came from elsewhere (`tune.py --extra`); the recipe has thresholds by
            domain, which these files have none of; see `check_recipe` and `predict_parts`.
    """
    check_looks_itself(recipe)
    values = pd.DataFrame({"kind": [kind_of(path) for path in items.paths], "domain": ""})
    values.index = pd.Index(items.item_ids, name="item_id")

    def decide(logits: Mapping[str, pd.Series]) -> pd.DataFrame:
        return apply_recipe(recipe, logits, 0.5, values).set_index("item_id")

    parts = stored.check_recipe(recipe)
    with TemporaryDirectory(prefix="rvf_") as home:
        here = [
            replace(part, views=Path(home) / f"{number}.views.parquet")
            for number, part in enumerate(parts)
        ]
        predict_parts(here, items, compute)
        stability = None
        if levels is not None:
            deliver([stored.as_delivered(part, levels) for part in here], items, compute)
        votes = decide(member_logits(recipe, here, items))
        if levels is not None:
            at = logits_at(recipe, here, items, levels)
            moved = {level: decide(logits) for level, logits in at.items()}
            stability = stability_of(votes, moved, levels)
        partial, no_face = stored.partly_read(here), stored.without_face(here)
        engines = stored.engines_of(here)
    checkpoints = {str(part.checkpoint): part.checkpoint_sha256 for part in parts}
    return FolderVotes(votes, partial, no_face, stability, checkpoints, engines)


def check_looks_itself(recipe: Recipe) -> None:
    """Raise a UserError for a recipe with a member that has no checkpoint to look at files."""
    for member in recipe.members:
        if member.weight and is_extra(recipe.dataset, recipe.scheme, member.model):
            raise UserError(
                f"the member {member.model!r} came from elsewhere (tune.py --extra): it has no "
                "checkpoint that could look at these files; tune a recipe without it (--models)"
            )
