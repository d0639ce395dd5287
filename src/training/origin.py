"""Where weights that a run starts from come from, as the records say when it begins.

It goes into the run's own record: what weights were trained on stays known when the run that made
them is gone, was made again, or was on another machine.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.runs import read_record
from src.errors import UserError
from src.models.checkpoint import is_ours

_STAGE = re.compile(r"\.stage_\d+$")
_KEYS = ("dataset", "scheme", "model", "fold", "folds_sha256", "pseudo", "start")


def origin_of(weights: Path, sha256: str) -> dict[str, Any] | None:
    """Return what the run was that wrote a file of weights.

    Its record lies beside the file, or is found among the runs here by the file's SHA-256; a file's
    name says nothing.

    Args:
        weights: the file.
        sha256: of it.

    Returns:
        What its record says: `dataset, scheme, model, fold, folds_sha256, pseudo, start` and, of a
        merge, `merged_from` with its `ingredients`. Empty for a checkpoint of this program without
        a record; None for all other weights.
    """
    record = next(_records(weights, sha256), None)
    if record is not None:
        ingredients = (record["merged_from"] or {}).get("ingredients", [])
        merged = {"merged_from": {"ingredients": ingredients}} if ingredients else {}
        return {**{key: record[key] for key in _KEYS}, **merged}
    return {} if is_ours(weights) else None


def _records(weights: Path, sha256: str) -> Iterator[dict[str, Any]]:
    beside = weights.with_name(f"{_STAGE.sub('', weights.stem)}.json")
    here = sorted(paths.checkpoints_home().glob("*/*/*/fold_*.json"))
    for path in (beside, *here):
        try:
            record = read_record(path)
        except UserError:
            continue  # none, of something else, or damaged: whoever uses that run hears of it
        stages = path.parent.glob(f"{path.stem}.stage_*.safetensors")
        if record["checkpoint_sha256"] == sha256 or sha256 in map(fingerprint_of, stages):
            yield record
