"""Commands beside training: what each reads and leaves, so that "done" is told by files alone."""

import hashlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from src import paths
from src.artifacts.folds import existing_scheme
from src.config import config_file
from src.launch.child import read_state
from src.launch.cost import last_seconds
from src.launch.jobs import Task
from src.soups.plan import read_plan

Files = tuple[list[Path], list[Path]]  # what a command reads, what it leaves
FilesOf = Callable[[str, str, Namespace], Files]
FILES: dict[str, FilesOf] = {}
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
    return _predictions(dataset, scheme, flags.models), [paths.recipe_json(dataset, flags.recipe)]


@_files("predict")
def _predict(dataset: str, _scheme: str, flags: Namespace) -> Files:
    recipe = flags.recipe or "tuned"
    if flags.output is not None:
        return [paths.recipe_json(dataset, recipe)], [flags.output]
    name = f"{recipe}_refit" if flags.refit else recipe
    return [paths.recipe_json(dataset, recipe)], [paths.submission_csv(dataset, name)]


@_files("merge")
def _merge(dataset: str, scheme: str, flags: Namespace) -> Files:
    if flags.output is not None:
        return [], [flags.output]
    fold = "*" if flags.fold is None else flags.fold
    reads, leaves = [], []
    for word in flags.merges:
        path = config_file("merges", word)
        plan = read_plan(path)
        names = {name.split("@")[0] for recipe in plan.recipes for name in recipe.sources}
        homes = [paths.run_dir(dataset, scheme, name) for name in names if paths.is_plain(name)]
        reads += [path, *(record for home in homes for record in home.glob("fold_*.json"))]
        home = paths.run_dir(dataset, scheme, plan.name)
        leaves += list(home.glob(f"fold_{fold}.json")) or [home / "fold_0.json"]
    return reads, leaves


@_files("robustness")
def _robustness(dataset: str, scheme: str, flags: Namespace) -> Files:
    if flags.recipe is not None:
        left = [paths.robustness_csv(dataset, scheme, flags.recipe, is_recipe=True)]
        return [paths.recipe_json(dataset, flags.recipe)], left
    left = [paths.robustness_csv(dataset, scheme, model) for model in flags.model or ()]
    return _predictions(dataset, scheme, flags.model), left


@_files("evaluate")
def _evaluate(dataset: str, scheme: str, flags: Namespace) -> Files:
    if flags.source is not None or flags.split is not None or flags.by == "mask":
        return [], []
    if flags.recipe is not None:
        left = [paths.scorecard_csv(dataset, scheme, flags.recipe, is_recipe=True)]
        return [paths.recipe_json(dataset, flags.recipe)], left
    return _predictions(dataset, scheme, [flags.model]), [
        paths.scorecard_csv(dataset, scheme, flags.model)
    ]


def _predictions(dataset: str, scheme: str, models: Iterable[str] | None) -> list[Path]:
    homes = [paths.oof_scheme_dir(dataset, scheme)]
    if models is not None:
        homes = [paths.oof_dir(dataset, scheme, model) for model in models]
    return [path for home in homes for path in home.rglob("fold_*.csv")]


def command_tasks(
    line: CommandLine, dataset: str, scheme: str | None, stage: int, times: int = 1
) -> list[Task]:
    """Return the job of a command, or so many that share its work.

    It is done where it ended well as it is typed now, what it leaves is there, and nothing that it
    reads is younger: then typing it again would tell nothing new.
    """
    key = hashlib.sha256("\0".join(line.words[1:]).encode()).hexdigest()[:8]
    tasks = []
    for number in range(1, times + 1):
        of = f"_{number}" if times > 1 else ""
        told = f" ({number} of {times})" if times > 1 else ""
        file = f"{line.name}.{key}{of}"
        state = paths.launch_state(dataset, file)

        def is_done(state: Path = state) -> bool:
            found = read_state(state)
            if found is None or found["code"] != 0 or found["words"] != list(line.words):
                return False
            made = scheme or existing_scheme(dataset, None)
            files_of = FILES.get(line.name)
            reads, leaves = files_of(dataset, made or "", line.flags) if files_of else ([], [])
            if not all(path.exists() for path in leaves):
                return False
            return all(path.stat().st_mtime <= found["ended"] for path in reads if path.exists())

        seconds = last_seconds(state)
        tasks.append(Task(line.text + told, file, line.words, stage, is_done, seconds))
    return tasks


def shared_studies(lines: Sequence[CommandLine]) -> list[str]:
    """Return the storages that several workers would make at once."""
    return sorted({line.flags.study for line in lines if line.name == WORKERS and line.flags.study})
