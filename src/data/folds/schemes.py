"""Names of fold schemes."""

import re

from src.data.items.manifest import Dataset
from src.errors import UserError

FIXED = "fixed"
LODO = "lodo"
UNSCANNED = "_unscanned"
_STRATIFIED = re.compile(r"^sgkf(\d{1,3})_s(\d{1,9})$")
FORMS = (
    "sgkf<k>_s<seed>, such as sgkf5_s42 (5 folds, seed 42); fixed (the CSV's fold column, "
    "or train/ and val/ as they stand); "
    f"lodo (leave one domain out); each with {UNSCANNED} at its end (made without opening a "
    "file, so copies are not kept together)"
)


def default_scheme(dataset: Dataset) -> str:
    """Return `fixed` where the CSV brings folds, else `sgkf5_s42` or what dataset.yaml says."""
    if dataset.given_folds is not None and not dataset.from_splits:
        return FIXED
    return f"sgkf{dataset.config.n_folds}_s{dataset.config.seed}"


def is_scanned(scheme: str) -> bool:
    """Return whether a scheme's folds know which files are unreadable, equal or alike."""
    return not scheme.endswith(UNSCANNED)


def is_lodo(scheme: str) -> bool:
    """Return whether a scheme holds out a domain a fold."""
    return scheme.removesuffix(UNSCANNED) == LODO


def parse_scheme(dataset: Dataset, scheme: str) -> tuple[int, int] | None:
    """Return (number of folds, seed) of a stratified scheme, None for `fixed` and `lodo`.

    Raises:
        UserError: no such form, fewer than 2 folds, or `fixed` without given folds.
    """
    whole, scheme = scheme, scheme.removesuffix(UNSCANNED)
    if scheme == FIXED:
        if dataset.given_folds is None:
            raise UserError(
                f"scheme fixed wants a fold column in the label CSV of {dataset.root}, or "
                "a train and a val of both classes, and there is neither "
                "(dataset.yaml can name the column: `fold_column: NAME`)"
            )
        return None
    if scheme == LODO:
        return None
    match = _STRATIFIED.match(scheme)
    if match is None or int(match[1]) < 2:
        raise UserError(f"unknown scheme {whole!r}; its forms are: {FORMS}")
    return int(match[1]), int(match[2])
