"""Commands beside training: what each reads and leaves, so that "done" is told by files alone."""

import hashlib
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src import paths
from src.artifacts.folds import existing_scheme
from src.artifacts.recipes import read_recipe
from src.config import config_file
from src.errors import UserError
from src.launch.child import read_state
from src.launch.cost import last_seconds
from src.launch.jobs import Task
from src.soups.plan import read_plan

# What a command reads (found while it is looked at), and what it leaves; None: not known here, and
# such a command is typed each time.
Files = tuple[Iterable[Path], list[Path]] | None
FilesOf = Callable[[str, str, Namespace], Files]
FILES: dict[str, FilesOf] = {}
SLACK = 2.0  # seconds by which the clocks of two machines may differ
WORKERS = "tune"  # the command of which several can share one work (a study)


@dataclass(frozen=True)
class CommandLine:
    """A command as it was typed, and read by its own parser."""

    name: str  # of the command: `tune`, `merge` ...
    words: tuple[str, ...]  # after `python`
    flags: Namespace
    text: str  # for people


def _files(name: str) -> Callable[[FilesOf], FilesOf]:
    def enter(files_of: FilesOf) -> FilesOf:
        FILES[name] = files_of
        return files_of

    return enter


@_files("tune")
def _tune(dataset: str, scheme: str, flags: Namespace) -> Files:
    reads = _predictions(dataset, scheme, flags.models)
    if flags.under or flags.also:  # other schemes, and items as they are delivered
        home = paths.oof_home() / dataset
        reads += [*_own(home, "fold_*.csv"), *_own(home, "delivered_*.parquet")]
    named = [word for text in flags.extra for word in text.partition("=")[2].split(",")]
    named += [text for text in flags.extra if "=" not in text]
    reads += [paths.folds_csv(dataset, scheme), *_rules(dataset, flags)]
    return [*reads, *map(Path, named)], [paths.recipe_json(dataset, flags.recipe)]


@_files("predict")
def _predict(dataset: str, _scheme: str, flags: Namespace) -> Files:
    name = flags.recipe or "tuned"
    if flags.vote:
        if flags.output is None or any(not word.endswith(".csv") for word in flags.vote):
            return None  # a list of files
        return list(map(Path, flags.vote)), [flags.output]
    weights = flags.checkpoint or [paths.recipe_json(dataset, name)]
    if flags.input_dir is not None and flags.output is None:
        return None
    if flags.input_dir is not None:
        out = flags.output.absolute().with_suffix("")  # what it writes may lie among them
        seen = (
            path
            for path in _all_in(flags.input_dir.absolute())
            if path != out.parent and path.with_suffix("") != out
        )
    else:
        seen = _folders_in(paths.dataset_dir(dataset, flags.input_root))
    name = f"{name}_refit" if flags.refit else name
    left = flags.output or paths.submission_csv(dataset, name)

    def reads() -> Iterator[Path]:
        yield from weights
        if not flags.checkpoint:
            yield from _members(dataset, flags.recipe or "tuned")
            yield from _rules(dataset, flags)
        yield from seen

    return reads(), [left]


@_files("merge")
def _merge(dataset: str, scheme: str, flags: Namespace) -> Files:
    if flags.holdout is not None or flags.push is not None:
        return None  # reads another data set; leaves nothing here
    fold = "*" if flags.fold is None else flags.fold
    reads: list[Path] = [] if flags.weights is None else [flags.weights]
    leaves: list[Path] = []
    for word in flags.merges:
        path = config_file("merges", word)
        plan = read_plan(path)
        names = {name for recipe in plan.recipes for name in recipe.sources}
        models = {name.split("@")[0] for name in names if paths.is_plain(name)}
        homes = [paths.run_dir(dataset, scheme, name) for name in models]
        reads += [path, *map(Path, names), *(one for home in homes for one in _runs(home))]
        home = paths.run_dir(dataset, scheme, plan.name)
        leaves += list(home.glob(f"fold_{fold}.json")) or [home / "fold_0.json"]
    return reads, leaves if flags.output is None else [flags.output]


@_files("robustness")
def _robustness(dataset: str, scheme: str, flags: Namespace) -> Files:
    if flags.recipe is not None:
        left = [paths.robustness_csv(dataset, scheme, flags.recipe, is_recipe=True)]
        return _members(dataset, flags.recipe), left
    if flags.model is None:  # a list of levels, for the one who reads it
        return None
    left = [paths.robustness_csv(dataset, scheme, model) for model in flags.model]
    runs = [one for model in flags.model for one in _runs(paths.run_dir(dataset, scheme, model))]
    return [*_predictions(dataset, scheme, flags.model), *runs], left


@_files("evaluate")
def _evaluate(dataset: str, scheme: str, flags: Namespace) -> Files:
    if flags.source is not None or flags.split is not None or flags.by == "mask":
        return None
    reads: list[Path] = []
    for name in (flags.recipe, flags.versus):
        reads += [] if name is None else _members(dataset, name)
    models = [name for name in (flags.model, flags.versus) if name is not None]
    reads += _predictions(dataset, scheme, models)
    subject = flags.recipe or flags.model
    is_recipe = flags.recipe is not None
    return reads, [paths.scorecard_csv(dataset, scheme, subject, is_recipe=is_recipe)]


def _predictions(dataset: str, scheme: str, models: Iterable[str] | None) -> list[Path]:
    homes = [paths.oof_scheme_dir(dataset, scheme)]
    if models is not None:
        homes = [paths.oof_dir(dataset, scheme, model) for model in models]
    return [path for home in homes for path in _own(home, "fold_*.csv")]


def _own(home: Path, pattern: str) -> Iterator[Path]:
    """Return files below a folder, but what `tune.py --extra` itself writes there."""
    brought = paths.extra_record("d", "s", "m").name
    return (path for path in home.rglob(pattern) if not (path.parent / brought).exists())


def _runs(home: Path) -> list[Path]:
    """Return the records and checkpoints of a model."""
    return [*home.glob("fold_*.json"), *home.glob("fold_*.safetensors")]


def _members(dataset: str, name: str) -> list[Path]:
    """Return a recipe and what its members trained and predicted."""
    path = paths.recipe_json(dataset, name)
    try:
        recipe = read_recipe(path)
    except UserError:  # the command itself says what is wrong with it
        return [path]
    models = [member.model for member in recipe.members]
    runs = [one for model in models for one in _runs(paths.run_dir(dataset, recipe.scheme, model))]
    return [path, *_predictions(dataset, recipe.scheme, models), *runs]


def _rules(dataset: str, flags: Namespace) -> list[Path]:
    """Return what says how a data set is scored, and by which rules."""
    home = paths.dataset_dir(dataset, flags.input_root)
    rules = getattr(flags, "rules", None)
    found = [home / "dataset.yaml", paths.dataset_yaml(dataset)]
    return found if rules is None else [*found, Path(rules)]


def _all_in(home: Path) -> Iterator[Path]:
    """Return a folder (or one file) and all below it."""
    yield home
    for folder, folders, files in os.walk(home):
        yield from (Path(folder, name) for name in (*folders, *files))


def _folders_in(home: Path) -> Iterator[Path]:
    """Return the folders of a data set, and the files of the first: its tables and archives.

    A file that comes or goes changes its folder's time; of ten million each file would be too many.
    """
    yield home
    for place, (folder, folders, files) in enumerate(os.walk(home)):
        yield from (Path(folder, name) for name in folders)
        if not place:
            yield from (Path(folder, name) for name in files)


def command_tasks(
    line: CommandLine, dataset: str, scheme: str | None, stage: int, times: int = 1
) -> list[Task]:
    """Return the job of a command, or so many that share its work.

    It is done where it ended well as it is typed now, what it leaves is there and of that time, and
    nothing that it reads is younger than its beginning: then typing it again would tell nothing
    new. Of a command that has no entry in `FILES` nobody knows, and it is typed again.
    """
    key = hashlib.sha256("\0".join(line.words[1:]).encode()).hexdigest()[:8]
    tasks = []
    for number in range(1, times + 1):
        of = f"_{number}" if times > 1 else ""
        told = f" ({number} of {times})" if times > 1 else ""
        file = f"{line.name}.{key}{of}"
        state = paths.launch_state(dataset, file)

        def files() -> Files:
            files_of = FILES.get(line.name)
            made = scheme or existing_scheme(dataset, None)
            return None if files_of is None else files_of(dataset, made or "", line.flags)

        def has_left(state: Path = state) -> bool:
            if _ended_well(state, line) is None:
                return False
            found = files()
            return found is None or all(path.exists() for path in found[1])

        def is_done(state: Path = state) -> bool:
            span = _ended_well(state, line)
            found = None if span is None else files()
            if span is None or found is None:
                return False
            began, ended = span
            for path in found[1]:
                if not path.exists() or (times == 1 and path.stat().st_mtime > ended + SLACK):
                    return False  # gone, or another command's by now
            # What came while it ran it may not have seen.
            return all(path.stat().st_mtime <= began for path in found[0] if path.exists())

        seconds = last_seconds(state)
        tasks.append(
            Task(line.text + told, file, line.words, stage, is_done, seconds, has_left=has_left)
        )
    return tasks


def _ended_well(state: Path, line: CommandLine) -> tuple[float, float] | None:
    """Return when a command began and ended that ended well as typed now; None where none did."""
    found = read_state(state)
    if found is None or found["code"] != 0 or found["words"] != list(line.words):
        return None
    return float(found["began"]), float(found["ended"])


def shared_studies(lines: Sequence[CommandLine]) -> list[str]:
    """Return the storages that several workers would make at once."""
    return sorted({line.flags.study for line in lines if line.name == WORKERS and line.flags.study})
