"""From models and folds to runs: which rows each trains on, and for how long."""

from collections.abc import Iterator, Sequence

import pandas as pd

from src import paths
from src.artifacts.folds import fold_numbers
from src.config import read_model
from src.data.folds.scan import scan_items
from src.data.items.manifest import Dataset
from src.training.job import Job, Options, job_table
from src.training.pseudo import PseudoLabels
from src.training.refit import refit_epochs


def plan_jobs(
    models: Sequence[str],
    dataset: Dataset,
    scheme: str,
    folds: pd.DataFrame,
    wanted: Sequence[paths.FoldName],
    options: Options,
) -> Iterator[Job]:
    """Return the runs of some models on some folds, model by model.

    What would refuse a whole model is found out here and now, a fold's rows only at its turn.

    Args:
        models: names.
        dataset: the data set.
        scheme: fold scheme.
        folds: its fold file.
        wanted: folds, or `all`.
        options: where and how fast.

    Raises:
        UserError: see `refit_epochs` and `PseudoLabels.add`.
    """
    table = job_table(dataset.train, folds)
    plans = [(model, read_model(model)) for model in models]
    labellers, stops, siblings = {}, {}, ()
    for model, config in plans:
        if config.pseudo is not None:
            labellers[model] = PseudoLabels(model, config.pseudo, dataset, scheme)
            labellers[model].check()
            siblings = siblings or _readable_test_paths(dataset)
        if paths.ALL in wanted:
            numbers = fold_numbers(folds)
            stops[model] = refit_epochs(dataset.name, scheme, model, config, numbers)

    def jobs() -> Iterator[Job]:
        for model, config in plans:
            for fold in wanted:
                rows, source, others = table, None, ()
                if model in labellers:
                    rows, source = labellers[model].add(table, fold)
                    others = siblings
                stop = stops[model] if fold == paths.ALL else None
                yield Job(
                    model, config, dataset.name, scheme, fold, dataset.root, rows, options,
                    source, stop, others,
                )  # fmt: skip

    return jobs()


def _readable_test_paths(dataset: Dataset) -> tuple[str, ...]:
    """Return the test items that some fold may be given pseudo-labels of."""
    scan = scan_items(dataset)  # remembered since the folds were made
    good = (scan["error"] == "") & (scan["split"] == "test")
    return tuple(dataset.items["path"][good.to_numpy()])
