"""Searches that outlive a process."""

import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from src.ensemble.search import STRATEGIES, Search
from src.ensemble.studies import open_storage
from src.errors import UserError

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 300)
pytestmark = pytest.mark.usefixtures("artefact_root")
LOGITS = (2 * LABEL - 1)[:, None] * [2.0, 0.5] + RNG.normal(size=(300, 2))


def fit(where, trials=8, fingerprint="f", seed=1, calls=None):
    on_trial = (lambda: None) if calls is None else (lambda: calls.append(1))
    search = Search(trials, seed, on_trial, str(where), "toy/tuned/tpe/all", fingerprint)
    return STRATEGIES.get("tpe").fit(LABEL, LOGITS, search)


def run_two(where, trials):
    """Search in two processes at once."""
    fork = get_context("fork")  # what is imported here is there
    workers = [fork.Process(target=fit, args=(where, trials)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]


def storages(tmp_path):
    return [f"sqlite:///{tmp_path}/s.db", tmp_path / "journal.log"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_stopped_search_goes_on_where_it_was(tmp_path, which):
    where = storages(tmp_path)[which]
    calls = []
    fit(where, trials=5, calls=calls)
    fit(where, trials=8, calls=calls)
    fit(where, trials=8, calls=calls)
    assert len(calls) == 8


@pytest.mark.parametrize("which", [0, 1])
def test_a_study_of_another_problem_is_refused(tmp_path, which):
    where = storages(tmp_path)[which]
    fit(where)
    with pytest.raises(UserError, match=r"'toy/tuned/tpe/all' is of another problem.*--recipe"):
        fit(where, fingerprint="g")


def test_the_best_of_all_workers_trials_is_taken(tmp_path):
    where = tmp_path / "journal.log"
    fit(where, trials=6)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(where)))
    study = optuna.load_study(study_name="toy/tuned/tpe/all", storage=storage)
    best = study.best_params
    weights = fit(where, trials=6).weights
    want = np.array([best["weight_0"], best["weight_1"]])
    assert weights == pytest.approx(want / want.sum())


@pytest.mark.parametrize("torn", [b'{"op_code":6,"work', b"{", b'{"op_code":' + b"9" * 70_000])
def test_a_line_that_a_full_disk_tore_costs_only_that_line(tmp_path, torn):
    where = tmp_path / "journal.log"
    fit(where, trials=5)
    whole = where.read_bytes()
    where.write_bytes(whole + torn)
    calls = []
    for trials in (8, 9):
        fit(where, trials=trials, calls=calls)
    assert len(calls) == 4
    assert where.read_bytes().startswith(whole)
    where.write_bytes(torn)  # the very first line
    fit(where, trials=2)


def test_a_file_that_is_no_journal_is_not_written_to(tmp_path):
    where = tmp_path / "mine.csv"
    where.write_text("id,label\n1,0")
    with pytest.raises(UserError, match="no journal of a study"):
        fit(where)
    assert where.read_text() == "id,label\n1,0"


def test_workers_open_a_fresh_storage_one_after_the_other(tmp_path, monkeypatch):
    inside, seen, real = [], [], optuna.create_study

    def slow(**how):
        inside.append(1)
        seen.append(len(inside))
        time.sleep(0.3)
        try:
            return real(**how)
        finally:
            inside.pop()

    monkeypatch.setattr(optuna, "create_study", slow)
    workers = [Thread(target=fit, args=(f"sqlite:///{tmp_path}/s.db", 2)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == [1, 1, 1]


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("/no/such/folder/journal.log", "want a file in a folder that exists"),
        ("sqlite:////no/such/folder/s.db", "unable to open"),
        ("nosuchdb://x", "nosuchdb"),
        ("postgresql://me:SECRET@127.0.0.1:1/none", r"postgresql://\*\*\*@127.0.0.1:1/none"),
    ],
)
def test_storages_out_of_reach_are_refused_plainly(where, match):
    with pytest.raises(UserError, match=match) as caught:
        fit(where)
    assert "SECRET" not in str(caught.value)


def _postgres():
    found = shutil.which("initdb") or next(
        iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))), None
    )
    if found is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="pip install psycopg[binary]")
    return Path(found).parent


@pytest.fixture
def open_folder():
    """Yield a folder that another user may reach: those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.nightly
def test_two_processes_share_a_postgresql_study(open_folder):
    programs = _postgres()
    tmp_path, run = open_folder, _as_server_user(open_folder)
    data = tmp_path / "data"
    run([programs / "initdb", "-D", data, "-A", "trust", "-U", "rvf"])
    run([programs / "pg_ctl", "-D", data, "-w", "-l", tmp_path / "log", "-o",
         f"-c listen_addresses='' -k {tmp_path}", "start"])  # fmt: skip
    try:
        where = f"postgresql://rvf@/postgres?host={tmp_path}"
        run_two(where, trials=12)
        # In a process of its own: its connections close with it.
        code = (
            "import optuna\nfrom src.ensemble.studies import open_storage\n"
            f"storage = open_storage({where!r})\n"
            "study = optuna.load_study(study_name='toy/tuned/tpe/all', storage=storage)\n"
            "print(sum(trial.state.name == 'COMPLETE' for trial in study.trials))"
        )
        counted = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
        )
        assert 12 <= int(counted.stdout) <= 15  # the fixed or the last trials of both may coincide
    finally:
        run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"])


def _as_server_user(folder):
    """PostgreSQL refuses to run as root; its package makes a user for it."""
    import os
    import pwd

    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(command):
        subprocess.run(
            list(map(str, command)), check=True, timeout=120, stdout=subprocess.DEVNULL,
            user=None if user is None else user.pw_uid, cwd=folder,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("which", [0, 1])
def test_two_processes_share_a_study_and_draw_different_points(tmp_path, which):
    where = str(storages(tmp_path)[which])
    run_two(where, trials=16)
    study = optuna.load_study(study_name="toy/tuned/tpe/all", storage=open_storage(where))
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert 16 <= len(done) <= 19  # the last trials, or the fixed ones, of both may coincide
    searched = [trial for trial in done if trial.datetime_start != trial.datetime_complete]
    points = {tuple(trial.params.values()) for trial in searched}
    assert len(points) >= len(searched) - 2


def test_equal_weights_are_there_whatever_happens_to_a_worker(tmp_path):
    where = tmp_path / "journal.log"
    fit(where, trials=1)
    storage = open_storage(str(where))
    [first] = optuna.load_study(study_name="toy/tuned/tpe/all", storage=storage).trials
    assert first.state.name == "COMPLETE"
    assert len(set(first.params.values())) == 1
