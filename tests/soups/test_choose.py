"""Chosen on held-out rows. Oracles: the runs' own out-of-fold files, log loss by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.files import read_csv, sha256_file
from src.artifacts.oof import read_views
from src.artifacts.runs import read_record
from src.errors import UserError
from src.soups.bench import Bench, plain
from src.soups.choose import own_logits
from src.soups.ingredients import Place, resolve
from src.soups.table import CROSS_FITTED
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.clips import write_clip
from tests.soups.test_run import UNIFORM, merge, oof_of, plan_of

MakeJob = Callable[..., Job]
FRAMES = {"train": 2, "eval": 3, "pool": "max"}


def clips(job: Job) -> Job:
    """Let the items of a job be clips, the fakes brighter."""
    table = job.table.copy()
    for row, label in enumerate(table["label"]):
        low = 5 + 3 * row + 60 * int(label)
        name = f"train/c{row:03d}.mp4"
        write_clip(job.root / name, 2 + row % 4, low=low, step=12)
        table.loc[table.index[row], "path"] = name
    return replace(job, table=table)


@pytest.fixture
def seen(make_job: MakeJob) -> Job:
    """Train `a` and `b` on clips of which the highest frame counts; returns the job of `a`."""
    jobs = [
        clips(make_job(model=name, seed=seed, init_seed=1, frames=FRAMES, tta="flip",
                       optim={"epochs": 1}))
        for name, seed in (("a", 1), ("b", 2))
    ]  # fmt: skip
    for job in jobs:
        assert fit_fold(job)
    return jobs[0]


def by_id(model: str) -> np.ndarray:
    table = pd.read_csv(paths.oof_csv("tiny", "s", model, 0))
    return table.sort_values("item_id")["logit"].to_numpy()


def test_an_ingredient_on_clips_counts_as_its_run_pooled_it(seen: Job) -> None:
    recipe = plain("uniform", ["a", "b"])
    found = resolve([recipe], Place("tiny", "s", 0))
    for name in "ab":
        mine = own_logits(seen, found[name])
        assert mine is not None
        np.testing.assert_array_equal(mine, by_id(name))
        views, _ = read_views(paths.oof_views("tiny", "s", name, 0))
        mean = views.groupby("item_id")["logit"].mean().to_numpy()
        assert np.abs(mine - mean).max() > 1e-3
    bench = Bench(seen, found, 0)
    bench.put(plain("uniform", ["b"]))
    np.testing.assert_allclose(bench.predict(), by_id("b"), atol=1e-5)


def test_logits_of_other_weights_are_not_taken(seen: Job) -> None:
    found = resolve([plain("uniform", ["a"])], Place("tiny", "s", 0))["a"]
    assert own_logits(seen, replace(found, sha256="0" * 64)) is None
    paths.oof_csv("tiny", "s", "a", 0).unlink()
    assert own_logits(seen, found) is None


def test_what_either_half_chose_is_written_with_its_fingerprint(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM + "select: greedy\nmetric: log_loss\n"), pair)
    file = paths.cross_fitted_csv("tiny", "s", "soup", 0)
    merged = read_record(paths.run_record("tiny", "s", "soup", 0))["merged_from"]
    assert merged["cross_fitted_sha256"] == sha256_file(file)
    table = read_csv(file, CROSS_FITTED, what="test")
    assert table["item_id"].is_monotonic_increasing
    assert set(table["half"]) == {"0", "1"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("select: greedy\nmetric: auc\n", "chosen by greedy (auc): uniform of "),
        ("select: learned\n", "weights learned by gradient: linear of a (weight "),
    ],
)
def test_what_decided_is_said_and_how_many_were_tried_is_not_said_twice(
    pair: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture, words: str, said: str
) -> None:
    caplog.set_level("INFO", "rvf")
    method = "linear" if "learned" in words else "uniform"
    merge(plan_of(tmp_path, f"merge_method: {method}\nmodels: [a, b]\n{words}"), pair)
    (line,) = [text for text in caplog.messages if "what either half chose" in text]
    assert line.startswith(said)
    assert "tried" not in line
    assert "macro_f1" not in line


def in_one_group(job: Job) -> Job:
    return replace(job, table=job.table.assign(group="all"))


def test_too_few_groups_are_refused_only_where_something_is_chosen(
    pair: Job, tmp_path: Path
) -> None:
    job = in_one_group(pair)
    with pytest.raises(UserError, match=r"soup fold 0: .* too few groups .*without `select` or"):
        merge(plan_of(tmp_path, UNIFORM + "select: greedy\n"), job)
    assert not merge(plan_of(tmp_path, UNIFORM), job).skipped


# --- BatchNorm of a merge that gives one model back ---


@pytest.mark.parametrize(("t", "name"), [(0.0, "a"), (1.0, "b")])
def test_an_end_of_a_search_is_that_model_itself(
    pair: Job, tmp_path: Path, t: float, name: str
) -> None:
    text = f"merge_method: slerp\nbase_model: a\nmodels: [b]\nparameters: {{t: {t}}}\n"
    merge(plan_of(tmp_path, text), pair)
    np.testing.assert_allclose(oof_of("soup"), oof_of(name), atol=1e-5)


def test_half_way_the_statistics_are_settled_anew(pair: Job) -> None:
    found = resolve([plain("uniform", ["a", "b"])], Place("tiny", "s", 0))
    settled, merged = Bench(pair, found, 30), Bench(pair, found, 0)
    for bench in (settled, merged):
        bench.put(plain("uniform", ["a", "b"]))
    assert np.abs(settled.predict() - merged.predict()).max() > 1e-4
