"""The book of submissions."""

import os
import stat
from functools import partial

import pandas as pd
import pytest

from src import paths
from src.artifacts.submissions import SubmissionFormat, write_answers, write_submission
from src.cli import parsers

main = partial(parsers.main, "submit_log")
pytestmark = pytest.mark.usefixtures("artefact_root")


def hand_in(recipe="tuned", labels=(0, 1, 1), more=None, **scores):
    ids = ["a", "b", "c"]
    layout = SubmissionFormat("id", "label", ids)
    sidecar = {"metric": "macro_f1", "rows": 3, "share_fake": 0.5, "scores": scores, **(more or {})}
    path = paths.submission_csv("toy", recipe)
    votes = pd.DataFrame({"prob": labels, "pred": labels}, index=ids)
    write_submission(path, layout, votes, sidecar)


def book():
    return pd.read_csv(paths.submission_log_csv())


def test_an_empty_book_says_how_to_begin(capsys):
    assert main([]) == 0
    assert "--data NAME --recipe NAME adds one" in capsys.readouterr().out


def test_a_submission_is_written_down_once_and_gets_its_score_later(capsys):
    hand_in(cross_fitted=0.91, interval=[0.9, 0.92], in_sample=0.93, incumbent=0.89)
    assert main(["--data", "toy", "--recipe", "tuned", "-m", "two\nmodels"]) == 0
    assert main(["--data", "toy", "--recipe", "tuned", "--public", "0.905"]) == 0
    [row] = book().to_dict("records")
    assert (row["cross_fitted"], row["low"], row["public"]) == (0.91, 0.9, 0.905)
    assert row["note"] == "two models"
    assert "0.9050" in capsys.readouterr().out


@pytest.mark.usefixtures("drawn")
def test_three_scores_make_a_plot_and_a_rank_correlation(capsys):
    for k in range(3):
        labels = (k & 1, k >> 1, 1)
        hand_in(f"r{k}", labels, cross_fitted=0.9 + k / 100, interval=[0.88, 0.95])
        main(["--data", "toy", "--recipe", f"r{k}", "--public", str(0.89 + k / 100)])
    out = capsys.readouterr().out
    assert "macro_f1: public - cross-fitted: mean -0.0100 over 3 submissions" in out
    assert "rank correlation +1.00" in out
    assert paths.submission_log_png().read_bytes().startswith(b"\x89PNG")


def test_a_submission_that_changed_is_not_written_down_with_old_scores(capsys):
    hand_in(cross_fitted=0.9)
    path = paths.submission_csv("toy", "tuned")
    path.write_text(path.read_text().replace("a,0", "a,1"))
    assert main(["--data", "toy", "--recipe", "tuned"]) == 2
    assert "is not about" in capsys.readouterr().err
    assert not paths.submission_log_csv().exists()


def test_mistakes_write_nothing(capsys):
    hand_in()
    for argv, match in (
        (["--recipe", "tuned"], "named by --data and --recipe"),
        (["--public", "0.5"], "named by --data and --recipe"),
        (["--data", "toy", "--recipe", "tunde"], "did you mean 'tuned'"),
        (["--data", "other", "--recipe", "tuned"], "holds no submission"),
        (["--data", "toy", "--recipe", "tuned", "--public", "93"], "score of macro_f1 from 0 to 1"),
    ):
        assert main(argv) == 2
        assert match in capsys.readouterr().err
    assert not paths.submission_log_csv().exists()


def test_scores_of_several_metrics_are_told_apart(capsys):
    for metric, cross_fitted, public in (("log_loss", 0.7, 1.5), ("auc", 0.9, 0.8)):
        for k in range(2):
            more, name = {"metric": metric}, f"{metric}{k}"
            hand_in(name, (k, 0, metric == "auc"), more, cross_fitted=cross_fitted)
            assert main(["--data", "toy", "--recipe", name, "--public", str(public)]) == 0
    out = capsys.readouterr().out
    assert "log_loss: public - cross-fitted: mean +0.8000 over 2 submissions" in out
    assert "auc: public - cross-fitted: mean -0.1000 over 2 submissions" in out
    assert main(["--data", "toy", "--recipe", "log_loss0", "--public", "-1"]) == 2
    assert "want a score of log_loss of 0 or more" in capsys.readouterr().err


def fake_client(folder, code, says):
    client = folder / "kaggle"
    client.write_text(f'#!/bin/sh\necho "{says} $*"\nexit {code}\n')
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_uploading_goes_through_the_client(tmp_path, monkeypatch, capsys):
    hand_in()
    argv = ["--data", "toy", "--recipe", "tuned", "--upload", "comp", "-m", "note"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(argv) == 2
    assert "pip install kaggle" in capsys.readouterr().err
    monkeypatch.setenv("PATH", fake_client(tmp_path, 1, "403 - Forbidden")["PATH"])
    assert main(argv) == 2
    assert "kaggle says: 403 - Forbidden" in capsys.readouterr().err
    assert not paths.submission_log_csv().exists()
    fake_client(tmp_path, 0, "Successfully submitted")
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert f"competitions submit -c comp -f {paths.submission_csv('toy', 'tuned')} -m note" in out
    assert len(book()) == 1
    paths.submission_log_csv().write_text("nonsense\n")
    assert main(argv) == 2
    assert "Successfully" not in capsys.readouterr().out


def test_what_parts_it_from_its_recipe_stands_in_the_note():
    left = {"checkpoints": ["a fold 0", "b fold 1"], "why": "time"}
    more = {"prior": {"method": "em"}, "refit": "text", "left_out": left}
    hand_in(more=more)
    argv = ["--data", "toy", "--recipe", "tuned"]
    said = "prior em; refit; left out a fold 0, b fold 1"
    main([*argv, "-m", "mine"])
    main([*argv, "--public", "0.9"])
    assert book()["note"].tolist() == [f"mine; {said}"]
    main([*argv, "-m", "other"])
    assert book()["note"].tolist() == [f"other; {said}"]


def test_a_vote_on_files_is_written_down_and_rows_stay_whole():
    hand_in("tuned", cross_fitted=0.9)
    voted = {"voted": [{}, {}, {}], "ties": 0, "rows": 3, "shares": {"1": 1.0}}
    table = pd.DataFrame({"id": ["a"], "label": ["1"]})
    write_answers(paths.submission_csv("toy", "voted"), table, voted)
    for recipe in ("tuned", "voted", "tuned"):
        assert main(["--data", "toy", "--recipe", recipe]) == 0
    table = pd.read_csv(paths.submission_log_csv(), dtype=str, keep_default_na=False)
    assert table["rows"].tolist() == ["3", "3"]
    assert table["share_fake"].tolist() == ["0.5", ""]
    assert table["metric"].tolist() == ["macro_f1", ""]
    assert table["output"].tolist() == ["label", ""]
    assert table["note"].tolist() == ["", "vote of 3 files"]


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"metric": 3}, "metric must be text (found 3)"),
        ({"rows": "3"}, "rows must be a whole number (found '3')"),
        ({"share_fake": True}, "share_fake must be a number (found True)"),
        ({"scores": []}, "scores must be a mapping of keys to values (found [])"),
        ({"scores": {"interval": [1]}}, "scores.interval must hold 2 or more values"),
        ({"scores": {"cross_fitted": "0.9"}}, "scores.cross_fitted must be a number"),
    ],
)
def test_a_sidecar_of_wrong_kinds_names_file_and_key(capsys, more, match):
    hand_in(more=more)
    assert main(["--data", "toy", "--recipe", "tuned"]) == 2
    error = capsys.readouterr().err
    assert f"tuned.json: {match}" in error
    assert not paths.submission_log_csv().exists()


def test_a_damaged_book_is_refused_and_kept(capsys):
    hand_in()
    main(["--data", "toy", "--recipe", "tuned"])
    path = paths.submission_log_csv()
    broken = path.read_text().replace("label,3", "label,three")
    path.write_text(broken)
    assert main(["--data", "toy", "--recipe", "tuned"]) == 2
    assert "row 2: rows is 'three', want a number" in capsys.readouterr().err
    assert path.read_text() == broken


def test_a_submission_is_a_name_no_path(capsys, artefact_root):
    hand_in()
    home = artefact_root / "submissions"
    for name in ("x.csv", "x.json"):
        (artefact_root / name).write_bytes((home / "toy" / f"tuned{name[1:]}").read_bytes())
    for data, recipe in (("toy", "../../x"), ("..", "x"), ("toy/../toy", "tuned")):
        assert main(["--data", data, "--recipe", recipe]) == 2
        assert "want a plain name" in capsys.readouterr().err
    assert not paths.submission_log_csv().exists()
