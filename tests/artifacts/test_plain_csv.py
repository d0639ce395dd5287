"""The quick way to read a CSV gives what the slow way gives, or leaves the file to it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.artifacts import files
from src.artifacts.files import parse_column, parse_plain, read_csv, split_plain, write_csv
from src.errors import UserError

COLUMNS = ["item_id", "logit"]
TEXT = st.text(st.sampled_from('ab1.-+e_ \t,"\n\r\u2028\u00e9'), max_size=40)
NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**60), 2**60).map(str),
    st.text(st.sampled_from("01289.eE+-_ naif"), max_size=8),
)


def outcome(read, *arguments):
    try:
        return read(*arguments)
    except UserError as error:
        return str(error)


def slowly(monkeypatch):
    monkeypatch.setattr(files, "split_plain", lambda *_: None)
    monkeypatch.setattr(files, "parse_plain", lambda *_: None)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    else:
        pd.testing.assert_series_equal(one, other, check_exact=True)


@given(TEXT)
def test_any_rows_are_split_alike(tmp_path_factory, body):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(f"item_id,logit\n{body}".encode())
    quick = outcome(lambda: read_csv(path, COLUMNS, what="table"))
    with pytest.MonkeyPatch.context() as patch:
        slowly(patch)
        same(outcome(lambda: read_csv(path, COLUMNS, what="table")), quick)


@given(st.lists(NUMBER, min_size=1, max_size=6), st.sampled_from([int, float]))
def test_any_numbers_are_parsed_alike_to_the_last_bit(tmp_path_factory, values, kind):
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    table = pd.DataFrame({"logit": pd.Series(values, dtype=str)})
    quick = outcome(parse_column, table, "logit", kind, path)
    with pytest.MonkeyPatch.context() as patch:
        slowly(patch)
        same(outcome(parse_column, table, "logit", kind, path), quick)


def test_what_we_write_goes_the_quick_way(tmp_path):
    logit = np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(-250, 250)
    table = pd.DataFrame({"item_id": [f"a/{i:03d} é.jpg" for i in range(500)], "logit": logit})
    write_csv(tmp_path / "x.csv", table)
    found = split_plain((tmp_path / "x.csv").read_text(), COLUMNS)
    assert found is not None
    assert found["item_id"].tolist() == table["item_id"].tolist()
    parsed = parse_plain(found["logit"], float)
    assert parsed is not None
    assert parsed.tolist() == logit.tolist()


@pytest.mark.parametrize(
    "text",
    ["item_id,logit\n", "logit,item_id\na,1\n", "item_id,logit\na\n", "item_id,logit\na,1,2\n",
     'item_id,logit\n"a",1\n', "item_id,logit\r\na,1\r\n", ""],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_slow_way(text):
    assert split_plain(text, COLUMNS) is None


@pytest.mark.parametrize(
    ("value", "kind"), [("", float), ("x", float), ("1_0", float), ("1.5", int)]
)
def test_what_is_no_plain_number_is_left_to_the_slow_way(value, kind):
    assert parse_plain(pd.Series(["1", value], dtype=str), kind) is None
