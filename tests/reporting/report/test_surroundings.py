"""What a data set says of itself: copies and leaks, and what files give away, in its order."""

import shutil

import pandas as pd
import pytest

from src import paths
from src.data.audit.fields import FIELDS
from src.data.audit.metadata import AuditPart, Tell
from src.data.folds.scan import known_scan, scan_items
from src.data.layouts.load import load_dataset
from src.reporting.report.blocks import Grid, Missing, Words
from src.reporting.report.surroundings import fold_blocks, tell_table

pytestmark = pytest.mark.usefixtures("toy", "coarse")


def test_leaks_are_shown_where_the_files_were_scanned_and_nothing_is_opened_for_it():
    home = paths.dataset_dir("toy") / "train"
    shutil.copy(home / "real" / "i02.png", home / "real" / "i04.png")
    shutil.copy(paths.folds_csv("toy", "s"), paths.folds_csv("toy", "sgkf3_s42"))
    dataset = load_dataset("toy")
    assert known_scan(dataset) is None
    *_, missing = fold_blocks(dataset, "toy", "sgkf3_s42")
    assert isinstance(missing, Missing)
    assert missing.command == "python -m src folds --data toy --scheme sgkf3_s42"
    scanned = scan_items(dataset)
    pd.testing.assert_frame_equal(known_scan(dataset), scanned)
    sizes, words, leaks = fold_blocks(dataset, "toy", "sgkf3_s42")
    assert isinstance(words, Words)
    assert "2 items have an equal file" in words.text
    assert isinstance(leaks, Grid)
    assert leaks.rows[0][0] == "equal files"
    assert [row[1] for row in sizes.rows] == ["20", "20", "20"]
    assert fold_blocks(dataset, "toy", "s")[-1].text.startswith("Copies and leaks are not known")
    assert "want the files" in fold_blocks(None, "toy", "sgkf3_s42")[-1].text


def test_what_a_net_can_see_comes_before_names():
    known = {field.name: field for field in FIELDS}
    tells = tuple(
        Tell(known[name], area, (0.5, 0.9), "rule", 1.0, 0.0)
        for name, area in (("name pattern", 0.99), ("width", 0.9), ("bytes", 0.6), ("format", 0.8))
    )
    part = AuditPart("all items", 10, 5, 10, tells=tells)
    assert tell_table(part)["field"].tolist() == ["format", "bytes", "width", "name pattern"]
