"""Records of finished runs: read strictly, held against where they lie and what lies beside them.

Every link of the chain is told by content. A run's record names its fold file, its checkpoint and
its out-of-fold predictions by SHA-256; recipes, exports and predictions name the checkpoint. So
whatever was copied over, put back or exchanged is noticed by the next reader.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import read_json, write_json
from src.artifacts.fingerprints import fingerprint_of
from src.errors import UserError

SCHEMA = 1
START = "start"  # `base_model: start` of a merge: what its first model was fine-tuned from
KEYS = [
    "dataset",
    "scheme",
    "model",
    "fold",
    "config",
    "config_sha256",
    "start",
    "data_sha256",
    "folds_sha256",
    "pseudo",
    "teachers",
    "stop_after",
    "paces",
    "budget",
    "selection",
    "epoch",
    "precision",
    "inference_precision",
    "micro_batch",
    "compiled",
    "device",
    "threads",
    "ranks",
    "seconds",
    "items_per_second",
    "parameters",
    "trainable",
    "stages",
    "history",
    "metrics",
    "merged_from",
    "checkpoint_sha256",
    "oof_sha256",
    "views_sha256",
    "versions",
    "git",
]
_KINDS = {
    "config": dict, "start": dict, "metrics": dict, "history": list, "epoch": int,
    "checkpoint_sha256": str, "oof_sha256": str, "views_sha256": str, "selection": str,
    "folds_sha256": str,
}  # fmt: skip


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a finished run, wherever it lies.

    Raises:
        UserError: missing or damaged.
    """
    try:
        found = read_json(path, schema=SCHEMA, what="run record", keys=KEYS, sealed=True)
    except UserError as error:
        raise UserError(f"{error}; train it again with --overwrite") from None
    for key, kind in _KINDS.items():
        if not isinstance(found[key], kind):
            raise UserError(
                f"{path}: {key} is {str(found[key])[:80]!r}, want {kind.__name__}; train it again "
                "with --overwrite"
            )
    return found


def read_run(dataset: str, scheme: str, model: str, fold: paths.FoldName) -> dict[str, Any]:
    """Read the record of a run of this repo.

    Raises:
        UserError: missing, damaged, or the record of another run that was put there.
    """
    path = paths.readable(paths.run_record(dataset, scheme, model, fold))
    found = read_record(path)
    wanted = {"dataset": dataset, "scheme": scheme, "model": model, "fold": fold}
    for key, value in wanted.items():
        if found[key] != value or isinstance(found[key], bool):
            raise UserError(
                f"{path}: this is the record of another run ({key} {found[key]!r}, not {value!r}), "
                f"put there by hand; {put_back(model, fold, dataset)}"
            )
    return found


def has_run(dataset: str, scheme: str, model: str, fold: paths.FoldName) -> bool:
    """Tell whether a run's record is there."""
    return paths.readable(paths.run_record(dataset, scheme, model, fold)).is_file()


def was_selected(record: Mapping[str, Any]) -> bool:
    """Tell whether a run's held-out rows had a say in it, so that its score on them is flattered.

    Its `selection` is `last` where they had none, `best` where they chose which epoch (or which
    merge) it is, `stopped` where they ended the training.
    """
    return record.get("selection") in ("best", "stopped")


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record of a run, the last thing that it writes."""
    write_json(path, record, seal=True)


def check_checkpoint(record: dict[str, Any]) -> Path:
    """Return a run's checkpoint, held against its record.

    Args:
        record: from `read_run`.

    Raises:
        UserError: gone, or not the file that the record speaks of.
    """
    names = names_of(record)
    return _check(paths.checkpoint(*names), record["checkpoint_sha256"], record)


def check_oof(record: dict[str, Any]) -> Path:
    """Return a run's out-of-fold CSV, held against its record; raises as `check_checkpoint`."""
    return _check(paths.oof_csv(*names_of(record)), record["oof_sha256"], record)


def oof_file(dataset: str, scheme: str, model: str, fold: int) -> Path:
    """Return an out-of-fold CSV, held against the record of the run where there is one.

    Raises:
        UserError: it is not what that run predicted.
    """
    if has_run(dataset, scheme, model, fold):
        return check_oof(read_run(dataset, scheme, model, fold))
    return paths.readable(paths.oof_csv(dataset, scheme, model, fold))


def check_views(record: dict[str, Any]) -> Path:
    """Return a run's out-of-fold views, held against its record; raises as `check_checkpoint`."""
    return _check(paths.oof_views(*names_of(record)), record["views_sha256"], record)


def names_of(record: dict[str, Any]) -> tuple[str, str, str, paths.FoldName]:
    """Return (dataset, scheme, model, fold), which name every artefact of a run."""
    return record["dataset"], record["scheme"], record["model"], record["fold"]


def put_back(model: str, fold: paths.FoldName, dataset: str) -> str:
    """Say what to do about artefacts of several runs that were mixed up."""
    return (
        f"put back the files of one run, or make fold {fold} of {model} again (train_folds.py "
        f"--model {model} --fold {fold} --data {dataset} --overwrite; a merge: python -m src merge)"
    )


def _check(path: Path, sha256: str, record: dict[str, Any]) -> Path:
    path = paths.readable(path)
    _, _, model, fold = names_of(record)
    again = put_back(model, fold, record["dataset"])
    if not path.is_file():
        raise UserError(f"{path} is not there, and the run's record speaks of it; {again}")
    if fingerprint_of(path) != sha256:
        raise UserError(f"{path}: not the file that its run record speaks of; {again}")
    return path


def ingredients_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the ingredients of a merge and those of the merges among them; none of a trained run.

    Each says `name, sha256, seed, dataset, scheme, model, fold, folds_sha256, start, pseudo`.
    """
    merged = record.get("merged_from") or {}
    return _flat(merged.get("ingredients", []))


def _flat(ingredients: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for one in ingredients for each in (one, *_flat(one.get("ingredients", [])))]
