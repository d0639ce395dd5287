"""CSV as we write and read it: any text and number survives; what is no table is refused."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.artifacts.files import csv_text, parse_column, read_csv, write_csv
from src.errors import UserError

COLUMNS = ["item_id", "logit"]
TEXT = st.text(st.sampled_from('ab1.-+e_ \t,"\n\r\u2028\u00e9'), max_size=12)
FIELD = st.text(st.sampled_from("ab1. \u2028\u00e9"), max_size=3)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_any_text_survives(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS), dtype=str)
    write_csv(path, table)
    assert read_csv(path, COLUMNS, what="table").to_numpy().tolist() == [list(r) for r in rows]
    assert [*csv.reader(io.StringIO(csv_text(table), newline=""))][1:] == [list(r) for r in rows]


@given(st.lists(st.lists(FIELD, min_size=1, max_size=3), min_size=1, max_size=5))
def test_rows_of_another_length_are_named_and_no_others(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "ragged.csv"
    lines = [",".join(row) for row in rows]
    path.write_bytes("\n".join(["item_id,logit", *lines]).encode())
    kept = [(row, line) for row, line in zip(rows, lines, strict=True) if line]
    odd = [number for number, (row, _) in enumerate(kept, 2) if len(row) != 2]
    if odd:
        with pytest.raises(UserError, match=rf"row {odd[0]} has \d fields, want 2"):
            read_csv(path, COLUMNS, what="table")
    else:
        table = read_csv(path, COLUMNS, what="table")
        assert table.to_numpy().tolist() == [row for row, _ in kept]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_numbers_survive_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    write_csv(path, pd.DataFrame({"logit": values}))
    parsed = parse_column(read_csv(path, ["logit"], what="table"), "logit", float, path)
    np.testing.assert_array_equal(parsed.to_numpy().view(np.int64), np.array(values).view(np.int64))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a readable CSV"),
        ("logit,item_id\na,1\n", "columns are"),
        ("item_id,item_id\na,1\n", "columns are"),
        ("item_id,logit\na\n", "row 2 has 1 fields"),
        ("item_id,logit\na,1\nb,1,2\n", "row 3 has 3 fields"),
        ('item_id,logit\n"a,1\n', "a quote is not closed"),
        ('item_id,logit\na,"1', "a quote is not closed"),
        ("item_id,logit\na,\0\n", "NUL"),
        (b"\xff\xfe", "not a readable CSV"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, said):
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=said):
        read_csv(path, COLUMNS, what="table")


@pytest.mark.parametrize("text", ["item_id,logit\r\na,1\r\n", '"item_id","logit"\n"a","1"\n'])
def test_other_programs_line_ends_and_quotes_are_read(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_csv(path, COLUMNS, what="table").to_numpy().tolist() == [["a", "1"]]


@pytest.mark.parametrize(
    ("value", "kind"),
    [("", float), ("x", float), ("1_0", float), ("nan", float), ("inf", float), ("1.5", int),
     ("0x10", int), (str(2**60 + 1), int)],
)  # fmt: skip
def test_what_is_no_such_number_is_named_with_its_row(tmp_path, value, kind):
    table = pd.DataFrame({"logit": ["1", value]}, dtype=str)
    with pytest.raises(UserError, match=r"row 3: logit is "):
        parse_column(table, "logit", kind, tmp_path / "x.csv")
    assert parse_column(table[:1], "logit", kind, tmp_path / "x.csv").tolist() == [1]
