"""What is to be done: our own commands, what each leaves behind, and in which order."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.atomic import file_lock
from src.config import ModelConfig, read_model
from src.data.items.manifest import Dataset
from src.launch.child import JobOrder
from src.launch.cost import recorded_seconds
from src.training.job import Job, Options
from src.training.plan import plan_jobs
from src.training.resume import discard, is_finished, wanted_start

# Of the launcher's environment, what commands listen to: some engines start from one of their own.
# No `SECRET`: an engine writes down what it hands on. Where jobs inherit the environment (a process
# here, SLURM's `--export`), they have it all the same.
CARRIED = (
    "RVF_", "HF_", "TORCH", "PYTORCH_", "TIMM_", "OMP_", "MKL_", "OPENBLAS_", "NCCL_", "GLOO_",
    "CUBLAS_", "WANDB_", "XDG_CACHE_HOME", "DO_NOT_TRACK",
)  # fmt: skip
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """One job: a command of ours, and how to tell that it is done."""

    name: str  # for people, unique
    key: str  # of its files below `launches/`
    words: tuple[str, ...]  # that are typed after `python`
    stage: int  # it begins once all of the stages before are done
    # tells by artefacts alone; raises a UserError where they are of something else
    is_done: Callable[[], bool] = field(compare=False)
    seconds: float | None = None  # that it takes, by records; None: there is none
    lock: Path | None = None  # held as long as a process works on it, whoever began that
    # tells of one that has ended just now whether what it leaves is there; None: as `is_done`
    has_left: Callable[[], bool] | None = field(default=None, compare=False)
    ranks: int = 1  # processes that share its cores


@dataclass(frozen=True)
class Models:
    """What is trained: each model on each fold is a job of its own."""

    dataset: Dataset
    scheme: str
    folds: pd.DataFrame  # the fold file
    models: Sequence[str]
    wanted: Sequence[paths.FoldName]  # folds, and `paths.ALL` for a refit
    options: Options  # of each run
    words: tuple[str, ...]  # flags of train_folds.py that every job is given
    ranks: int = 1  # that share each fold, a card each
    # models of which nothing can be there yet: their config, or the fold file, is not written
    unmade: Mapping[str, ModelConfig] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        """Return the jobs: teachers before their students, refits after all folds.

        Raises:
            UserError: what lies there is of another run (its config, folds, data or weights have
                changed), or a refit lacks the folds that it borrows from.
        """
        held_out = [fold for fold in self.wanted if fold != paths.ALL]
        written = [model for model in self.models if model not in self.unmade]
        jobs = {
            (job.model, job.fold): job for job in (self._jobs(held_out, written) if written else ())
        }
        found = [
            self._task(jobs[model, fold]) if model in written else self._unmade(model, fold)
            for model in self.models
            for fold in held_out
        ]
        after = 1 + max((task.stage for task in found), default=-1)
        if paths.ALL in self.wanted:
            if not held_out and written:  # what would refuse a refit says so now
                self._jobs([paths.ALL], written)
            found += [self._refit(model, after) for model in self.models]
        return found

    def depth(self, model: str) -> int:
        """Return how many teachers, and teachers of these, are trained before a model."""
        distil = (self.unmade.get(model) or read_model(model)).distil
        teachers = [] if distil is None else [t for t in distil.teachers if t in self.models]
        return 1 + max(map(self.depth, teachers)) if teachers else 0

    def take_away(self) -> None:
        """Take away all runs, finished or half done, as `--overwrite` does (the records first).

        Raises:
            LockedError: another process is at work on one of them; none is gone.
        """
        held_out = [fold for fold in self.wanted if fold != paths.ALL]
        jobs = self._jobs(held_out)
        if paths.ALL in self.wanted:
            one = next(iter(jobs or self._jobs([paths.ALL])))
            jobs += [replace(one, model=model, fold=paths.ALL) for model in self.models]
        with ExitStack() as locks:
            for job in jobs:
                locks.enter_context(file_lock(paths.run_lock(*job.names), job.title))
            for job in jobs:
                discard(job)

    def _jobs(self, wanted: Sequence[paths.FoldName], models: Sequence[str] = ()) -> list[Job]:
        names = models or self.models
        return list(plan_jobs(names, self.dataset, self.scheme, self.folds, wanted, self.options))

    def _task(self, job: Job) -> Task:
        start = wanted_start(job)
        return self._named(
            job.model, job.fold, self.depth(job.model),
            lambda: _is_whole(job) and is_finished(job, start),
        )  # fmt: skip

    def _unmade(self, model: str, fold: paths.FoldName) -> Task:
        return self._named(model, fold, self.depth(model), lambda: False)

    def _refit(self, model: str, stage: int) -> Task:
        names = (self.dataset.name, self.scheme, model, paths.ALL)

        def is_done() -> bool:
            if not paths.run_record(*names).is_file():
                return False  # nor can it be planned before its folds are there
            (job,) = self._jobs([paths.ALL], [model])
            return _is_whole(job) and is_finished(job, wanted_start(job))

        return self._named(model, paths.ALL, stage, is_done)

    def _named(
        self, model: str, fold: paths.FoldName, stage: int, is_done: Callable[[], bool]
    ) -> Task:
        names = (self.dataset.name, self.scheme, model, fold)
        return Task(
            f"{model} fold {fold}",
            f"train.{self.scheme}.{paths.model_slug(model)}.fold_{fold}",
            (
                str(paths.REPO / "train_folds.py"), "--model", model, "--fold", str(fold),
                "--data", self.dataset.name, "--scheme", self.scheme, *self.words,
            ),
            stage, is_done, recorded_seconds(*names), paths.run_lock(*names), ranks=self.ranks,
        )  # fmt: skip


def _is_whole(job: Job) -> bool:
    """Tell whether all files of a finished run are seen here.

    `is_finished` takes a record without them away; who only looks must not, all the less where
    another machine has just written them and this one has not heard of all yet.
    """
    files = [paths.run_record(*job.names), paths.checkpoint(*job.names)]
    files += [] if job.is_refit else [paths.oof_csv(*job.names)]
    return all(path.exists() for path in files)


def order_of(task: Task, dataset: str, secret: str, cores: int) -> JobOrder:
    """Return what a worker is told of a job that may use so many cores."""
    kept = carried(os.environ)
    log, state = paths.launch_log(dataset, task.key), paths.launch_state(dataset, task.key)
    return JobOrder(
        task.name, task.words, sys.executable, str(Path.cwd()),
        kept | shares(cores, ranks=task.ranks), str(log),
        str(state), str(paths.launch_token(dataset)), secret,
    )  # fmt: skip


def carried(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job is told of the launcher's environment, and nothing that is secret."""
    return {
        key: value
        for key, value in environment.items()
        if key.startswith(CARRIED) and not SECRET.search(key)
    }


def shares(
    cores: int, environment: Mapping[str, str] = os.environ, *, ranks: int = 1
) -> dict[str, str]:
    """Return what lets a command use so many cores, or fewer where fewer threads were asked for.

    `ranks`: its processes, which share them.
    """
    said = [environment.get(name, "") for name in THREADS]
    least = min(
        [max(1, cores // ranks), *(int(one) for one in said if one.isdecimal() and int(one))]
    )
    found = dict.fromkeys(THREADS, str(least))
    return {
        **found, "LOKY_MAX_CPU_COUNT": str(cores), "RVF_ROOT": str(paths.root()),
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
