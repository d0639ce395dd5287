"""What a dry run would write, known without writing it: members of models, and folds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import CLUSTERS, existing_scheme, read_folds
from src.artifacts.variants import is_written, seed_members
from src.config import ModelConfig, read_model
from src.data.folds.make import check_fit
from src.data.folds.schemes import (
    UNSCANNED,
    default_scheme,
    domain_folds,
    full_name,
    is_lodo,
    parse_scheme,
)
from src.data.items.manifest import Dataset


def planned_members(
    models: Sequence[str], changes: Mapping[str, Any], new_name: str | None, seeds: int
) -> tuple[list[str], dict[str, ModelConfig]]:
    """Return the names of all members, and the configs of those that are not written yet.

    Raises:
        UserError: a name is that of another model, or none.
    """
    names: list[str] = []
    unmade: dict[str, ModelConfig] = {}
    for model in models:
        own = dict(changes)
        first = new_name or model
        members = {first: own}
        for name, seed in seed_members(first, read_model(model, own).seed, seeds).items():
            members[name] = own | {"seed": seed}
        for name, changed in members.items():
            names.append(name)
            if changed and not is_written(name, model, changed):
                unmade[name] = read_model(model, changed)
    return names, unmade


def planned_folds(dataset: Dataset, scheme: str | None) -> tuple[str, pd.DataFrame, bool]:
    """Return the scheme and its fold file, and whether it is there; else only its fold numbers.

    Raises:
        UserError: see `ensure_folds`, as far as no file must be opened for it.
    """
    if scheme is not None:
        parse_scheme(dataset, scheme)
    dataset.require_train()
    if scheme is not None and scheme != CLUSTERS:
        scheme = full_name(dataset, scheme)
    found = existing_scheme(dataset.name, scheme)
    if found is not None:
        folds = read_folds(paths.folds_csv(dataset.name, found))
        check_fit(dataset, found, folds)
        return found, folds, True
    wanted = full_name(dataset, scheme or default_scheme(dataset))
    return wanted, pd.DataFrame({"fold": _numbers(dataset, wanted)}), False


def _numbers(dataset: Dataset, scheme: str) -> list[int]:
    """Return the folds that a scheme will have."""
    numbered = parse_scheme(dataset, scheme)
    if numbered is not None:
        return list(range(numbered[0]))
    if is_lodo(scheme.removesuffix(UNSCANNED)):
        own = dataset.train[~dataset.train["item_id"].isin(dataset.extra_ids)]
        # Copies, which only a scan would find, change no fold's number.
        alone = np.arange(len(own), dtype=np.int64)
        labels = own["label"].to_numpy(np.int64)
        given = domain_folds(labels, own["domain"].reset_index(drop=True), alone, dataset.root)
    else:
        assert dataset.given_folds is not None  # parse_scheme
        given = dataset.given_folds.to_numpy()
    return sorted({int(one) for one in given if one >= 0})
