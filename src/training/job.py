"""One run: a model, a fold, the items it trains on and the items it is scored on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import sha256_json
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.folds import fold_numbers
from src.compute.budget import Budget
from src.compute.request import Compute
from src.config import ModelConfig
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.mapped import give_back
from src.texts import Texts

WORDS = ("about", "licence")  # fields that describe a model and do not change what is trained


@dataclass(frozen=True)
class Options(Compute):
    """What computes a run, and from which weights; nothing that changes what is trained."""

    overwrite: bool = False  # start again where a run is finished or half done
    weights: Path | None = None  # file to start from
    no_pretrained: bool = False  # start at random
    cache: str = "auto"  # where decoded pixels are kept: `auto`, `disk`, `ram`, `none`
    # where the scores of each epoch go beside the log (a registered tracker)
    track: str = "tensorboard"
    report: bool = True  # whether a command draws each fold that has ended


@dataclass(frozen=True)
class Job:
    """What `fit_fold` trains."""

    model: str
    config: ModelConfig
    dataset: str
    scheme: str
    fold: paths.FoldName  # the held-out fold; `paths.ALL` trains on every row and holds nothing out
    root: Path  # folder of the data set
    # one row an item: `item_id, path, bytes, label, group, fold`, and `stamp` (`Dataset.stamps`)
    # where the manifest's are known; ids, paths and groups are strings, the rest int64
    table: pd.DataFrame
    options: Options = field(default_factory=Options)  # where and how fast
    # what the pseudo-labels among the rows were made from; None without
    pseudo: dict[str, Any] | None = None
    # which nets teach it, with `distil`, as its record says; found where it is trained
    teachers: list[dict[str, Any]] | None = None
    # epochs to train of each stage, of its schedule (a number where there is one stage); None
    # trains all of them
    stop_after: int | list[int] | None = None
    # how far along each stage's schedule a batch goes (`Run.pace`): in a refit as in its folds;
    # None for 1, or for what the budget says
    paces: list[float] | None = None
    budget: Budget | None = None  # the time that the runs of a command share; None has no limit
    # item_id -> path of its mask, of items that have one; looked at where `config.wants_masks`
    masks: pd.Series = field(default_factory=lambda: pd.Series(dtype=object))
    # paths of items that other folds may train on: one pixel cache serves all folds
    siblings: Sequence[str] = ()

    @property
    def names(self) -> tuple[str, str, str, paths.FoldName]:
        """(dataset, scheme, model, fold), which name every artefact of the run."""
        return self.dataset, self.scheme, self.model, self.fold

    @property
    def title(self) -> str:
        """What messages call the run."""
        return f"{self.dataset}/{self.scheme}/{self.model} fold {self.fold}"

    @property
    def folds_sha256(self) -> str:
        """The fingerprint of the fold file."""
        return fingerprint_of(paths.folds_csv(self.dataset, self.scheme))

    @cached_property
    def data_sha256(self) -> str:
        """The fingerprint of the items: their ids and sizes in bytes, and masks that are used."""
        digest = hashlib.sha256(Texts(self.table["item_id"]).sha256())
        digest.update(self.table["bytes"].to_numpy("<i8"))
        if self.config.wants_masks:
            digest.update(self.mask_paths.sha256())
        give_back()
        return digest.hexdigest()

    def identity(self, start: dict[str, Any]) -> dict[str, Any]:
        """Return what must agree for a run to be reused or resumed.

        `start` holds `source` and `sha256` of the weights it starts from.
        """
        return {
            "config_sha256": config_sha256(self.config),
            "data_sha256": self.data_sha256,
            "folds_sha256": self.folds_sha256,
            "start": {"source": start["source"], "sha256": start["sha256"]},
            "pseudo": self.pseudo,
            "teachers": self.teachers,
            "stop_after": self.stop_after,
            "paces": self.paces,
        }

    @cached_property
    def mask_paths(self) -> Texts:
        """The path of each row's mask, "" for none."""
        named = Texts([*self.masks, ""])
        places = Texts(self.masks.index).find(Texts(self.table["item_id"]))
        return named.take(places % len(named))  # the last one stands for -1

    @property
    def stamps(self) -> NDArray[np.int64] | None:
        """What changes when the file of a row does, by row; None where the disk must be asked."""
        return self.table["stamp"].to_numpy(np.int64) if "stamp" in self.table else None

    @property
    def labels(self) -> NDArray[np.int64]:
        """The 0/1 labels by row."""
        return self.table["label"].to_numpy(np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """The groups by row, "" for none."""
        return self.table["group"].to_numpy(np.str_)

    @property
    def group_numbers(self) -> NDArray[np.int64]:
        """A number by row, equal for rows of one group; -1 for none."""
        codes, names = pd.factorize(self.table["group"])
        none = names.get_indexer(pd.Index([""]))[0]
        return np.where(codes == none, -1, codes)

    @property
    def is_refit(self) -> bool:
        """Whether every row is trained on and none is held out."""
        return self.fold == paths.ALL

    @property
    def train_rows(self) -> NDArray[np.int64]:
        """The rows trained on."""
        return np.flatnonzero(~self._held())

    @property
    def held_rows(self) -> NDArray[np.int64]:
        """The held-out rows; none in a refit."""
        return np.flatnonzero(self._held())

    def _held(self) -> NDArray[np.bool_]:
        fold = self.table["fold"].to_numpy()
        return np.zeros(len(fold), bool) if self.is_refit else fold == self.fold


def config_sha256(config: ModelConfig) -> str:
    """Return the fingerprint of everything in a config that decides what is trained."""
    return sha256_json({k: v for k, v in config.as_dict().items() if k not in WORDS})


def check_fold(folds: pd.DataFrame, fold: paths.FoldName) -> None:
    """Raise a UserError naming the folds there are, unless `fold` is one of them, or `all`."""
    numbers = fold_numbers(folds)
    if fold != paths.ALL and fold not in numbers:
        raise UserError(
            f"there is no fold {fold}; folds are {', '.join(map(str, numbers))}, and "
            f"{paths.ALL} trains on every row"
        )


def stamped(dataset: Dataset) -> pd.DataFrame:
    """Return the manifest of a data set with the column `stamp`."""
    stamps = np.asarray(dataset.stamps).astype(np.int64)
    return dataset.items.assign(stamp=stamps)


def job_table(items: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """Join a fold file with the train part of a manifest: see `Job.table`; in the file's order.

    `items`: `item_id, path, bytes`, and `stamp` where it is known.

    Raises:
        UserError: the fold file names an item that the data set no longer has.
    """
    there, wanted = Texts(items["item_id"]), Texts(folds["item_id"])
    same = there == wanted  # as long as nothing is left out, and then nothing is copied
    rows = np.arange(0) if same else there.find(wanted)
    gone = np.flatnonzero(rows < 0)
    if len(gone):
        raise UserError(
            f"{len(gone)} items of the fold file are not in the data set any more, the "
            f"first is {wanted[int(gone[0])]!r}; put them back, or make folds anew "
            "under another scheme"
        )
    give_back()  # both columns were read from end to end
    columns = {"item_id": folds["item_id"].array}
    for column in [one for one in ("path", "bytes", "stamp") if one in items]:
        values = items[column].array
        columns[column] = values if same else values.take(rows)
    columns |= {column: folds[column].array for column in ("label", "group", "fold")}
    return pd.DataFrame(columns, copy=False)
