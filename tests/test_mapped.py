"""Mapped files: Arrow reads them where they lie, and pages that were given back come again."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from src.mapped import give_back, map_file


def mapped_mib() -> float:
    """Return how much of this process' memory is pages of files."""
    found = re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it there")
def test_pages_are_given_back_and_come_again(tmp_path):
    numbers = np.arange(4_000_000)
    table = pa.table({"number": numbers})
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    before, own = mapped_mib(), pa.total_allocated_bytes()
    column = pa.ipc.open_file(map_file(path)).read_all()["number"].chunk(0).to_numpy()
    assert column.sum() == numbers.sum()
    assert mapped_mib() - before > 25
    give_back()
    assert mapped_mib() - before < 5
    assert np.array_equal(column, numbers)
    assert pa.total_allocated_bytes() == own
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        map_file(path)
