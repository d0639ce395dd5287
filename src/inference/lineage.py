"""What weights were trained on: their run, the merges and starts it came from; no leaked score.

One answer for every command that scores. A run names its data set, folds and pseudo-labels; a
merge names its ingredients, and a run its teachers, the weights that it started from and what
their record said when it began (`origin_of`): that stays known when the run that made them is gone,
was made again, or was on another machine. Where nothing says what was trained on, there is no
score.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.folds import read_folds
from src.artifacts.recipes import Recipe
from src.artifacts.runs import START, has_run, ingredients_of, read_record, read_run
from src.data.items.dataset_yaml import DatasetConfig, read_dataset_yaml
from src.data.items.manifest import Dataset
from src.errors import UserError

Item = tuple[str, str]  # a data set that consists of no others, an id in it
Run = Mapping[str, Any]
ACROSS = (
    "A merge of fold K takes fold K of every model; a soup across folds is written with --fold "
    "all, and scored with --holdout on a data set that no ingredient saw"
)
_STAGE = re.compile(r"\.stage_\d+$")
_ORIGIN = ("dataset", "scheme", "model", "fold", "folds_sha256", "pseudo", "start", "teachers")


@dataclass(frozen=True)
class Training:
    """A training that weights come from, their own or an earlier one."""

    what: str  # in words, to begin a sentence with
    # its record, or what the record of a merge says of it; without `dataset` where nothing says
    # what it was trained on
    run: Run
    advice: str = ACROSS  # how not to have it among them


def origin_of(weights: Path, sha256: str, *, ours: bool) -> dict[str, Any] | None:
    """Return which run wrote a file of weights, for the record of a run that starts from it.

    Its record lies beside the file, or is found among the runs here by the file's SHA-256; a file's
    name says nothing. Returned are `dataset, scheme, model, fold, folds_sha256, pseudo, start,
    teachers` and, of a merge, `merged_from` with its `ingredients`; without a record, nothing for a
    checkpoint of this program (`ours`) and None for all other weights.
    """
    record = next(_records_of_weights(weights, sha256), None)
    if record is None:
        return {} if ours else None
    ingredients = (record["merged_from"] or {}).get("ingredients", [])
    merged = {"merged_from": {"ingredients": ingredients}} if ingredients else {}
    return {**{key: record[key] for key in _ORIGIN}, **merged}


def _records_of_weights(weights: Path, sha256: str) -> Iterator[dict[str, Any]]:
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


def lineage(records: Iterable[tuple[str, Run | None]], advice: str = ACROSS) -> Iterator[Training]:
    """Yield every training that models come from, their own first, each once.

    A model is its name and its run record, None where there is none: so everywhere below. `advice`
    says how not to have the model itself among them.
    """
    done: set[tuple[Any, ...]] = set()
    for name, record in records:
        for one in (Training(name, record or {}, advice), *_before(record or {}, name, set())):
            keys = ("dataset", "scheme", "fold", "folds_sha256", "pseudo")
            mark = tuple(str(one.run.get(key)) for key in keys)
            if mark not in done:
                done.add(mark)
                yield one


def records_of(
    recipe: Recipe, folds: Sequence[paths.FoldName] | None = None
) -> list[tuple[str, Run | None]]:
    """Return the records of the runs that predict, None where there is none (`tune --extra`).

    `folds` as in `Recipe.runs`.
    """
    return [
        (one.model, read_run(*names) if has_run(*names) else None)
        for one, fold in recipe.runs(folds)
        for names in [(recipe.dataset, recipe.scheme, one.model, fold)]
    ]


def check_own(
    dataset: str,
    scheme: str,
    models: Sequence[str],
    folds: Iterable[int],
    input_root: Path | None = None,
) -> None:
    """Raise where something behind out-of-fold predictions was trained on their rows.

    See `check_unseen`; models without a record (`tune --extra`) are passed over.
    """
    read = cache(lambda: read_folds(paths.readable(paths.folds_csv(dataset, scheme))))
    for fold in folds:
        names = [(dataset, scheme, model, fold) for model in models]
        records = [(one[2], read_run(*one)) for one in names if has_run(*one)]
        if any(_has_past(run) for _, run in records):
            check_unseen(records, (dataset, scheme, fold), read(), input_root)


def _has_past(run: Run) -> bool:
    """Tell whether more than the run's own rows is behind its weights."""
    return bool(run["merged_from"] or run["teachers"] or run["start"].get("source") == "file")


def check_unseen(
    records: Iterable[tuple[str, Run | None]],
    held_out: tuple[str, str, paths.FoldName],
    table: pd.DataFrame,
    input_root: Path | None = None,
    advice: str = ACROSS,
) -> None:
    """Check that no model, and nothing it comes from, was trained on the rows of a fold.

    `held_out` is their data set, scheme and fold, `table` that fold file (`item_id`, `fold`);
    `advice` as in `lineage`.

    Raises:
        UserError: one saw some of them, or nothing says what it saw.
    """
    dataset, scheme, fold = held_out
    held = set(table.loc[table["fold"] == fold, "item_id"])
    for one in lineage(records, advice):
        _trained_set(one, f"the {len(held)} rows to be scored")
        leaked = held & trained_on(one, dataset, scheme, table, input_root)
        if leaked:
            raise UserError(
                f"{one.what} was trained on {len(leaked)} of the {len(held)} rows that are to be "
                f"scored, such as {min(leaked)!r}: no leaked score is reported. {one.advice}"
            )


def trained_on(
    one: Training, dataset: str, scheme: str, table: pd.DataFrame, input_root: Path | None = None
) -> set[str]:
    """Return the ids of the items in a fold file, `table`, that one training saw.

    Raises:
        UserError: the fold file that it was trained with is gone, or has changed since.
    """
    run = one.run
    same = run["dataset"] == dataset
    rows = _fold_rows(one, table if same and run["scheme"] == scheme else None)
    ids = (rows if run["fold"] == paths.ALL else rows[rows["fold"] != run["fold"]])["item_id"]
    if same:
        return set(ids)
    own = _by_part(dataset, table["item_id"], input_root)
    return {own[part] for part in _parts(run["dataset"], ids) & own.keys()}


def trained_sets(
    records: Iterable[tuple[str, Run | None]],
    other: Dataset,
    input_root: Path | None = None,
    *,
    own: bool = False,
) -> dict[str, set[str] | None]:
    """Return what models that are to be scored on another data set were trained on.

    That is, by data set, the ids in the fold files, held-out ones among them; None where test items
    were trained on too, with pseudo-labels. Those alone count where the other set is their `own`.

    Raises:
        UserError: one was trained on items of the other data set, as a part of a larger one or by
            its own name; or nothing says what it was trained on.
    """
    mine = [one for one in other.train["item_id"] if one not in other.extra_ids]
    scored = {} if own else _by_part(other.name, mine, input_root)
    found: dict[str, set[str] | None] = {}
    for one in lineage(records):
        name = _trained_set(one, other.name)
        if name == other.name and not own:
            raise UserError(f"{one.what} was trained on {name}: no leaked score is reported")
        if one.run.get("pseudo"):
            _check_pseudo(one, other, input_root)
        ids = set(_fold_rows(one)["item_id"])
        shared = _parts(name, ids) & scored.keys()
        if shared:
            raise UserError(
                f"{one.what} was trained on {len(shared)} items of {other.name}, for example "
                f"{min(scored[part] for part in shared)!r} (folds/{name}/{one.run['scheme']}.csv): "
                "no leaked score is reported"
            )
        known = found.get(name, set())
        found[name] = None if known is None or one.run.get("pseudo") else known | ids
    return found


def _trained_set(one: Training, rows: str) -> str:
    """Return the data set that was trained on; raises where nothing says whether on some rows."""
    if not one.run.get("dataset"):
        raise UserError(
            f"{one.what} came without a run record, so nothing says whether it was trained on "
            f"{rows}: no score that could be a leaked one is reported"
        )
    return one.run["dataset"]


def share_items(first: Run, other: Run, input_root: Path | None = None) -> bool:
    """Tell whether two runs' fold files score items in common, as parts of larger sets too.

    True as well where a fold file is gone, so that nothing says what is in it.
    """
    if first["dataset"] == other["dataset"]:
        return True
    files = [paths.folds_csv(run["dataset"], run["scheme"]) for run in (first, other)]
    if not all(file.is_file() for file in files):
        return True
    tables = [read_folds(file) for file in files]
    ids = [table.loc[table["fold"] >= 0, "item_id"] for table in tables]  # `extra:` is not scored
    both = [(run["dataset"], one) for run, one in zip((first, other), ids, strict=True)]
    return any(
        _by_part(*mine, input_root).keys() & _parts(*theirs) for mine, theirs in (both, both[::-1])
    )


def _before(run: Run, name: str, done: set[str]) -> Iterator[Training]:
    """Yield what a run comes from: ingredients, starts and teachers, and theirs."""
    for one in (run, *ingredients_of(run)):
        if one is not run and one["name"] != START:
            yield Training(f"{one['name']}, an ingredient of {name},", one)
        start = one.get("start") or {}
        ways = [(start, f"from which {name} started,", "from weights that did not see them")]
        taught = f"which taught {name},", "with a teacher that did not see them"
        for source, how, better in [*ways, *((t, *taught) for t in one.get("teachers") or [])]:
            origin, sha256 = source.get("origin"), str(source.get("sha256") or "")
            if origin is None or sha256 in done:
                continue
            done.add(sha256)
            what = origin.get("model") or f"{source['name']} (sha256 {sha256[:12]})"
            yield Training(f"{what}, {how}", origin, f"Train {name} {better}")
            yield from _before(origin, name, done)


def _check_pseudo(one: Training, other: Dataset, input_root: Path | None) -> None:
    """Raise where test items that were trained on are of the data set that is to be scored."""
    name = one.run["dataset"]
    shared = {name, *dataset_config(name, input_root).combine} & {other.name, *other.config.combine}
    if shared:
        also = "" if name == other.name else f" (of {', '.join(sorted(shared))} in {other.name})"
        raise UserError(
            f"{one.what} was trained on test items of {name} with pseudo-labels: their{also} score "
            "would be that of a net that has seen them; evaluate the model without"
        )


def dataset_config(dataset: str, input_root: Path | None) -> DatasetConfig:
    """Return what `dataset.yaml` says, of a data set that need not be there itself."""
    home = paths.dataset_dir(dataset, input_root)
    return read_dataset_yaml(home, paths.readable(paths.dataset_yaml(dataset)))


def _by_part(dataset: str, ids: Iterable[str], input_root: Path | None) -> dict[Item, str]:
    """Return the items of a data set by the parts that `combine:` and `extra:` made it of."""
    config = dataset_config(dataset, input_root)
    names = {*config.combine, *config.extra}
    found: dict[Item, str] = {}
    for one in ids:
        first, _, rest = one.partition("/")
        found[(first, rest) if first in names else (dataset, one)] = one
    return found


def _parts(dataset: str, ids: Iterable[str]) -> set[Item]:
    """Return all that ids of a data set may stand for.

    What was trained on may have had other parts then, or be gone by now; so each beginning of an
    id counts as the name of a part.
    """
    pairs = [(one.partition("/"), one) for one in ids]
    return {(dataset, one) for _, one in pairs} | {(first, rest) for (first, _, rest), _ in pairs}


def _fold_rows(one: Training, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the fold file that a run was trained with; `table` where it has been read already.

    Raises:
        UserError: it is gone, or another one by now.
    """
    run = one.run
    path = paths.readable(paths.folds_csv(run["dataset"], run["scheme"]))
    fault = ""
    if not path.is_file():
        fault = "is not there, the fold file that it was trained with"
    elif run.get("folds_sha256") != fingerprint_of(path):
        fault = "is not the fold file that it was trained with any more"
    if fault:
        raise UserError(
            f"{one.what.rstrip(',')}: {path} {fault}, so nothing says which rows it saw; put that "
            "file back, or train it again (--overwrite)"
        )
    return read_folds(path) if table is None else table
