"""Votes on submission files: majority of labels, mean of probabilities or of their ranks."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from src.ensemble.vote_files import read_ballots, vote_files
from src.errors import UserError

IDS = [f"i{k}.jpg" for k in range(8)]


@pytest.fixture
def submit(tmp_path):
    def write(name, labels, ids=IDS, header=("filename", "label")):
        path = tmp_path / f"{name}.csv"
        table = pd.DataFrame({header[0]: ids, header[1]: labels})
        table.sample(frac=1, random_state=len(name)).to_csv(path, index=False)
        return str(path)

    return write


def test_the_majority_wins_whatever_the_order_of_rows(submit):
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 2, (3, 8))
    files = [submit("x" * (k + 1), vote) for k, vote in enumerate(votes)]
    table, _, _, output, ties, _ = vote_files(read_ballots(files, None))
    assert (output, ties) == ("label", 0)
    found = table.set_index("filename")["label"].astype(int).loc[IDS]
    assert found.tolist() == (votes.sum(axis=0) >= 2).astype(int).tolist()
    assert table["filename"].tolist() == pd.read_csv(files[0])["filename"].tolist()


def test_weights_and_ties(submit):
    files = [submit("a", ["real"] * 8), submit("b", ["fake"] * 8), submit("c", ["fake"] * 8)]
    heavy = vote_files(read_ballots(files, [3.0, 1.0, 1.0]))
    assert (set(heavy.table["label"]), heavy.ties) == ({"real"}, 0)
    even = vote_files(read_ballots(files, [2.0, 1.0, 1.0]))
    assert (set(even.table["label"]), even.ties) == ({"real"}, 8)  # the heaviest decides
    two = vote_files(read_ballots(files[1::-1], None))
    assert (set(two.table["label"]), two.ties) == ({"fake"}, 8)  # else the first


def test_a_yaml_lists_them(submit, tmp_path):
    submit("a", [0] * 8)
    submit("b", [1] * 8)
    (tmp_path / "v.yaml").write_text("files:\n  - a.csv\n  - {path: b.csv, weight: 2}\n")
    assert set(vote_files(read_ballots([str(tmp_path / "v.yaml")], None)).table["label"]) == {"1"}


PROBS = np.random.default_rng(3).uniform(size=(3, 8)).round(2)


@pytest.mark.parametrize("kind", [None, "prob", "rank"])
def test_probabilities_are_averaged_or_their_ranks(submit, kind):
    probs, weights = PROBS.copy(), np.array([1.0, 2.0, 0.5])
    probs[1, :3] = probs[1, 3]  # equal ones share their rank
    files = [submit("x" * (k + 1), row, header=("id", "prob")) for k, row in enumerate(probs)]
    voted = vote_files(read_ballots(files, list(weights)), kind)
    want = np.stack([(rankdata(row) - 0.5) / 8 for row in probs]) if kind == "rank" else probs
    found = voted.table.set_index("id")["prob"].loc[IDS]
    np.testing.assert_allclose(found, weights @ want / weights.sum(), rtol=0, atol=1e-15)
    assert voted.hold().output == voted.output == (kind or "prob")
    assert (voted.hold().low, voted.hold().high) == (found.min(), found.max())


def test_the_answer_among_several_columns_is_settled_by_its_name(tmp_path):
    for name, prob in (("a", 0.2), ("b", 0.6)):
        rows = f"id,Usage,y_pred,fold\nx,Public,{prob},1\nz,Private,0.1,1\n"
        (tmp_path / f"{name}.csv").write_text(rows)
    files = [str(tmp_path / f"{name}.csv") for name in "ab"]
    table = vote_files(read_ballots(files, None)).table
    assert table.to_csv(index=False) == "id,Usage,y_pred,fold\nx,Public,0.4,1\nz,Private,0.1,1\n"
    (tmp_path / "a.csv").write_text("id,label,prob\nx,1,0.7\nz,0,0.1\n")
    with pytest.raises(UserError, match=r"which of the columns label, prob is the answer\?"):
        vote_files(read_ballots(files, None))


@pytest.mark.parametrize(
    ("labels", "kind", "match"),
    [
        ([0, 1] * 4, None, r"b.csv: holds labels alone, beside probabilities"),
        ([0.5, 1.5, *[0.1] * 6], None, r"b.csv: row \d: '1.5' is no probability from 0 to 1"),
        ([0.5, "fake", *[0.1] * 6], None, r"b.csv: row \d: 'fake' is no probability"),
        ([0.5, "nan", *[0.1] * 6], None, r"b.csv: row \d: 'nan' is no probability"),
        (PROBS[1], "label", "hold probabilities, of which no label is made.*prob, or rank"),
    ],
)
def test_files_that_hold_other_things_are_refused(submit, labels, kind, match):
    files = [submit("a", PROBS[0]), submit("b", labels)]
    with pytest.raises(UserError, match=match):
        vote_files(read_ballots(files, None), kind)
    labels_alone = read_ballots([submit("c", [0, 1] * 4), submit("d", [1, 1] * 4)], None)
    with pytest.raises(UserError, match=r"hold labels, of which no rank is made.*label"):
        vote_files(labels_alone, "rank")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("file: [a.csv]", "unknown key in .*: 'file'; did you mean 'files'"),
        ("files: a.csv", "want `files:`"),
        ("files: [a.csv, {path: a.csv, wait: 2}]", "'files.2.wait'; did you mean 'files.2.weight'"),
        (
            "files: [{path: a.csv, weight: much}]",
            "files.1.weight must be a number .*'much'",
        ),
        ("files: [3]", r"files.1 must be .*\(found 3\); want `files:`"),
        ("files: [a.csv]", "wants two or more"),
        ("files: [a.csv, ./a.csv]", "named twice"),
        ("files: [a.csv, {path: b.csv, weight: 0}]", "want finite numbers > 0"),
        ("files: [a.csv, c.csv]", "c.csv is not there"),
    ],
)
def test_a_wrong_list_is_refused(submit, tmp_path, content, match):
    submit("a", [0] * 8)
    submit("b", [1] * 8)
    (tmp_path / "v.yaml").write_text(content)
    with pytest.raises(UserError, match=match):
        read_ballots([str(tmp_path / "v.yaml")], None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ids": IDS[:7], "labels": [0] * 7}, r"b.csv: id 'i7.jpg' of .*a.csv is missing"),
        ({"ids": [*IDS, "z"], "labels": [0] * 9}, r"b.csv: id 'z' is not in .*a.csv"),
        ({"ids": [*IDS, "i0.jpg"], "labels": [0] * 9}, "'i0.jpg' stands there twice"),
        ({"header": ("id", "label"), "labels": [0] * 8}, "columns are"),
        ({"labels": [0, 1, 2, 0, 0, 0, 0, 0]}, "label '2' is a third one beside"),
        ({"labels": [0, 1, "", 0, 0, 0, 0, 0]}, "is empty"),
    ],
)
def test_bad_files_name_file_and_row(submit, change, match):
    change = {"labels": [0] * 8} | change
    files = [submit("a", [0, 1] * 4), submit("b", **change)]
    with pytest.raises(UserError, match=match):
        vote_files(read_ballots(files, None))


@pytest.mark.parametrize(
    ("rows", "match"),
    [("a,0,1\nb,1,0\n", r"row 2 has 3 fields"), ("a,0\nb,1,\n", r"row 3 has 3 fields"),
     ("a\0,0\nb,1\n", "NUL bytes")],
)  # fmt: skip
def test_rows_that_pandas_would_shift_are_refused(tmp_path, rows, match):
    for name in ("x.csv", "y.csv"):
        (tmp_path / name).write_text("id,label\n" + rows)
    with pytest.raises(UserError, match=match):
        vote_files(read_ballots([str(tmp_path / "x.csv"), str(tmp_path / "y.csv")], None))
