"""Trained models that merges are made of: trained once a session, a copy of the files a test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from src.training.job import Job
from src.training.trainer import fit_fold

_TRAINED: dict[str, Path] = {}
MakeJob = Callable[..., Job]


def trained_once(
    name: str, jobs: list[Job], root: Path, folders: pytest.TempPathFactory
) -> list[Job]:
    """Train jobs whose artefacts lie below `root`, or copy there what they made before."""
    if name in _TRAINED:
        shutil.copytree(_TRAINED[name], root, dirs_exist_ok=True)
        return jobs
    for job in jobs:
        assert fit_fold(job)
    _TRAINED[name] = folders.mktemp(name) / "root"
    shutil.copytree(root, _TRAINED[name])
    return jobs


OPTIM = {"epochs": 2, "lr": 1e-2}


@pytest.fixture
def pair(make_job: MakeJob, artefact_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Train `a` and `b`, the second further from the same seed; returns the job of `a`."""
    jobs = [make_job(model="a", optim=OPTIM), make_job(model="b", optim=OPTIM | {"lr": 5e-3})]
    return trained_once("pair", jobs, artefact_root, tmp_path_factory)[0]


@pytest.fixture
def trio(
    pair: Job, make_job: MakeJob, artefact_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """Train `far`, too, from another start; returns the job of `a`."""
    far = make_job(model="far", seed=9, optim={"epochs": 3, "lr": 3e-2})
    trained_once("trio", [far], artefact_root, tmp_path_factory)
    return pair
