"""Errors by traits of files, held against plain counting over files that were made to differ."""

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src import paths
from src.data.audit.metadata import read_headers
from src.data.layouts.load import load_dataset
from src.reporting.report.subjects import subject_of_runs
from src.reporting.report.traits import error_table, trait_blocks, traits_of
from src.reporting.runs import collect_runs
from tests.reporting.conftest import predict

pytestmark = pytest.mark.usefixtures("toy", "coarse")


@pytest.fixture
def files():
    """Store the toy's items as JPEGs of three qualities and two sizes; returns both by item_id."""
    rng = np.random.default_rng(3)
    home, stored = paths.dataset_dir("toy") / "train", {}
    for number, path in enumerate(sorted(home.glob("*/*.png"))):
        quality, side = (50, 75, 90)[number % 3], (24, 40)[number % 2]
        pixels = rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        path.write_bytes(data)
        stored[f"{path.parent.name}/{path.name}"] = quality, side
    return stored


def test_rates_are_those_of_plain_counting(files):
    predict("m")
    one = subject_of_runs(collect_runs("toy", "s", "m"))
    table = error_table(one.rows, traits_of(read_headers(load_dataset("toy"))))
    wrong = dict(zip(one.rows.item_id, one.rows.pred != one.rows.label, strict=True))
    for place, trait in ((0, "JPEG quality"), (1, "shorter side, px")):
        part = table[table["trait"] == trait]
        assert part["value"].tolist() == [
            f"{v}" for v in sorted({f[place] for f in files.values()})
        ]
        for row in part.to_dict("records"):
            mine = [wrong[item] for item, said in files.items() if f"{said[place]}" == row["value"]]
            assert (row["items"], row["errors"]) == (len(mine), sum(mine))
            limits = binomtest(sum(mine), len(mine)).proportion_ci(method="wilson")
            assert (row["low"], row["high"]) == pytest.approx((limits.low, limits.high))
    spread = table[table["trait"] == "bytes"]
    assert spread["items"].tolist() == [12] * 5
    assert spread["items"].sum() == 60
    assert "camera or device" not in set(table["trait"])  # none has one
    names = table[table["trait"] == "name (digits as #)"].set_index("value")["items"]
    assert names.to_dict() == {"i#": 59, "all others (1)": 1}  # one is too few to be named


def test_items_that_were_not_predicted_do_not_count_and_a_sample_is_said(files):
    predict("m", [0])
    one = subject_of_runs(collect_runs("toy", "s", "m"))
    headers = read_headers(load_dataset("toy"), 30)
    assert 30 <= len(headers.table) < 40
    words, table = trait_blocks(one, headers, traits_of(headers), ("real", "fake"))
    assert f"Headers of {len(headers.table)} of 60 train items" in words.text
    counted = pd.read_csv(table.csv)
    both = set(headers.items["item_id"]) & set(one.rows.item_id)
    assert counted[counted["trait"] == "JPEG quality"]["items"].sum() == len(both) < 30
