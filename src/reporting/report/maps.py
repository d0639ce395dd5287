"""Where a model looks in its most wrong and most right items: the sheet of checked maps.

Drawing costs passes through the net, so that it is done on demand; a sheet that is there is shown
as long as nothing that it was made of is younger.
"""

import shlex

import pandas as pd

from src import paths
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.reporting.map_sheet import draw_mapped
from src.reporting.report.blocks import Block, Missing, Picture, Words
from src.reporting.report.subjects import Reported

STEM = "maps"
LOST = "No maps: no checkpoint of a fold that is scored is here."


def map_blocks(
    reported: Reported, models: list[Reported], dataset: Dataset | None, *, draw: bool
) -> list[Block]:
    """Return the sheet of a model, or of the member of a recipe that has the most say.

    Args:
        reported: of whom.
        models: those of the same data set.
        dataset: where the items lie; None where that is not known.
        draw: whether to look at the items now; else what is there is shown.
    """
    owner = _owner(reported, models)
    if owner is None or owner.runs is None:
        return []
    path = owner.folder / f"{STEM}.png"
    blocks: list[Block] = []
    if owner is not reported:
        blocks.append(Words(f"Of {owner.name}, the member of the largest weight.", soft=True))
    name, data = shlex.quote(owner.name), shlex.quote(owner.dataset)
    command = f"python -m src report {name} --data {data} --scheme {owner.scheme} --maps"
    if draw and dataset is not None and not _is_fresh(owner):
        try:
            if draw_mapped(owner.runs, dataset, path) is None:
                return [*blocks, Words(LOST)]
        except UserError as error:
            return [*blocks, Words(f"No maps: {error}")]
    names = owner.dataset, owner.scheme, owner.name
    nets = (paths.readable(paths.checkpoint(*names, fold)) for fold in owner.runs.folds)
    if not any(path.is_file() for path in nets):
        return [*blocks, Words(LOST)]
    if not _is_fresh(owner):
        text = "Where the net looks in the most wrong and most right items, each map checked:"
        return [*blocks, Missing(text, command)]
    table = pd.read_csv(path.with_suffix(".csv"), dtype={"withheld": str}, keep_default_na=False)
    kept = int((table["withheld"] == "").sum())
    alt = (
        f"{table['item_id'].nunique()} items with {len(table)} maps of where {owner.name} looks; "
        f"{kept} passed their check, the others are withheld with the reason."
    )
    return [
        *blocks,
        Picture(path, "Maps, each held against chance", alt, is_plot=False, is_wide=True),
    ]


def _owner(reported: Reported, models: list[Reported]) -> Reported | None:
    if reported.recipe is None:
        return reported
    known = {one.name: one for one in models if not one.is_recipe}
    weights = {m.model: abs(m.weight) for m in reported.recipe.members if m.model in known}
    return known[max(weights, key=lambda name: (weights[name], name))] if weights else None


def _is_fresh(owner: Reported) -> bool:
    """Tell whether a sheet is there, and no run or prediction has changed since."""
    path = owner.folder / f"{STEM}.png"
    if owner.runs is None or not (path.is_file() and path.with_suffix(".csv").is_file()):
        return False
    names = owner.dataset, owner.scheme, owner.name
    made_of = [paths.run_record(*names, fold) for fold in owner.runs.records]
    made_of += [paths.oof_csv(*names, fold) for fold in owner.runs.folds]
    times = [one.stat().st_mtime for one in made_of if one.is_file()]
    return all(time <= path.stat().st_mtime for time in times)
