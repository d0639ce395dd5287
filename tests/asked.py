"""Finished jobs as what a prediction is asked with: a recipe, its checkpoints, items."""

from src.artifacts.recipes import Member, Recipe
from src.inference.stored import ItemsToPredict, Part, needed_parts
from src.training.job import Job


def recipe_of(*jobs: Job) -> Recipe:
    """Return a recipe of the jobs' models and folds."""
    models, folds = (
        list(dict.fromkeys(names)) for names in zip(*[(j.model, j.fold) for j in jobs], strict=True)
    )
    members = [
        Member(model, 1 / len(models), 0.5, [job.fold for job in jobs if job.model == model])
        for model in models
    ]
    rows = [fold for fold in folds if isinstance(fold, int)]
    return Recipe(jobs[0].dataset, jobs[0].scheme, rows, "", members, [])


def parts_of(*jobs: Job) -> list[Part]:
    """Return the jobs' checkpoints."""
    return needed_parts(recipe_of(*jobs))


def items_of(job: Job, rows: slice | list[int] = slice(None)) -> ItemsToPredict:
    """Return a job's own items as some to be predicted."""
    table = job.table.iloc[rows]
    return ItemsToPredict(job.root, table["item_id"].tolist(), table["path"].tolist(), "manifest")
