"""Delivered predictions that do not fit: the message names the command that makes them."""

import pytest

from src import paths
from src.artifacts.oof import read_views, write_views
from src.ensemble.align import align
from src.ensemble.shift.delivered import read_delivered
from src.errors import UserError
from tests.ensemble.shift.synthetic import LEVELS, make_member
from tests.ensemble.synthetic import DATA, SCHEME, make_folds

COMMAND = f"python -m src robustness --data {DATA} --model a --scheme {SCHEME}"
pytestmark = pytest.mark.usefixtures("artefact_root")


@pytest.mark.parametrize("seed", [42, 43])
def test_what_does_not_fit_is_to_be_made_with_the_same_seed(seed):
    make_member(make_folds(n=60, groups=20), "a")
    path = paths.delivered_views(DATA, SCHEME, "a", 42, 1)
    views, metadata = read_views(path)
    mine = {k: paths.delivered_views(DATA, SCHEME, "a", seed, k) for k in range(3)}
    for fold, own in mine.items():
        stored = read_views(paths.delivered_views(DATA, SCHEME, "a", 42, fold))
        write_views(own, *stored)
    rows, flag = align(DATA, SCHEME), " --seed 43" if seed == 43 else ""
    assert list(read_delivered(rows, seed=seed).levels) == list(LEVELS)

    def told(levels=("blur1",)):
        with pytest.raises(UserError) as error:
            read_delivered(rows, levels, seed)
        return str(error.value)

    assert f"{COMMAND} --levels webp50{flag};" in told(["webp50"])
    write_views(mine[1], views, metadata | {"checkpoint_sha256": "other"})
    assert "other weights" in told()
    assert f"{COMMAND}{flag};" in told()
    write_views(mine[1], views[views["view"] != "blur1:full"], metadata)
    assert f"{COMMAND} --levels blur1{flag};" in told()
    mine[1].unlink()
    assert f"{COMMAND}{flag};" in told()
