"""Names with anything in them, links in circles, many files, other locales."""

import os
import shutil
import subprocess
import sys
import time
import unicodedata

import pandas as pd
import pytest

from src import paths
from src.artifacts.folds import read_folds
from src.data.folds.scan import look_at
from src.data.items.listing import list_files
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.hostile.conftest import become_nobody, in_child, predict, train, tune

NAMES = [
    "a b.png", " lead.png", "trail .png", "comma,.png", 'quote".png', "it's.png", "new\nline.png",
    "car\rriage.png", "tab\t.png", "semi;colon.png", "#hash.png", "100%.png", "=1+1.png", "-x.png",
    "NA.png", "null.png", "007.png", "1e5.png", "back\\slash.png", "\u202eright.png",
    "\U0001f600.png", unicodedata.normalize("NFC", "caf\u00e9.png"),
    unicodedata.normalize("NFD", "caf\u00e9.png"),
    "\u5317\u4eac.png", "\x1b[31mred.png", "x" * 200 + ".png", "dots..png", "a.b.c.png",
]  # fmt: skip


def test_every_name_survives_the_whole_job(make_dataset, artefact_root, toy):
    odd = [f"{folder}/{name}" for folder in ("train/real", "train/fake", "test") for name in NAMES]
    make_dataset([*(f"pad{i}/x.png" for i in range(30)), *odd])
    for i in range(30):
        (toy / f"pad{i}/x.png").unlink()
    assert [train("--fold", "0", report=True), tune(), predict()] == [0, 0, 0]
    folds = read_folds(paths.folds_csv("toy", "sgkf2_s42"))
    want = {f"{kind}/{name}" for kind in ("real", "fake") for name in NAMES}
    assert want <= set(folds["item_id"])
    with paths.submission_csv("toy", "tuned").open(encoding="utf-8", newline="") as file:
        answers = pd.read_csv(file, dtype=str, keep_default_na=False)
    assert set(NAMES) <= set(answers["filename"])
    assert len(answers) == len(NAMES) + 4


def test_accents_written_in_two_ways_find_each_other(make_dataset):
    composed, apart = (unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD"))
    make_dataset(
        [f"train/{apart}1.png", f"train/{composed}2.png"],
        {"train.csv": f"id,label\n{composed}1,0\n{apart}2.png,1\n"},
    )
    assert sorted(load_dataset("toy").items["label"]) == [0, 1]


def test_two_names_that_differ_in_that_only_are_never_guessed(make_dataset):
    pair = [unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD")]
    make_dataset(
        [f"train/{name}.png" for name in pair],
        {"train.csv": f"id,label\n{pair[0]},0\n{pair[1]},1\n"},
    )
    items = load_dataset("toy").items
    assert dict(zip(items["path"], items["label"], strict=True)) == {
        f"train/{pair[0]}.png": 0, f"train/{pair[1]}.png": 1
    }  # fmt: skip


def test_a_name_that_is_not_utf8_is_named_and_can_be_left_aside(make_dataset):
    root = make_dataset(["real/a.png", "fake/b.png"])
    (root / "real" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    with pytest.raises(UserError, match=r"1 file names are not UTF-8.*caf\\udce9\.png.*convmv"):
        load_dataset("toy")
    (root / "dataset.yaml").write_text("ignore: ['real/caf*']\n")
    assert len(load_dataset("toy").items) == 2


# --- links


def test_links_in_circles_end_and_are_counted(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"1")
    (tmp_path / "real" / "up").symlink_to("..")
    (tmp_path / "real" / "top").symlink_to(tmp_path.parent)
    listing = list_files(tmp_path)
    assert len(listing.media) == 1
    assert listing.ignored == {"link back to a folder above": 2}
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(UserError, match=r"self is a link to self"):
        list_files(tmp_path)


def test_a_folder_that_is_linked_twice_is_refused_not_listed_without_end(tmp_path):
    for i in range(25):  # each level linked twice: 2^25 paths
        (tmp_path / f"d{i}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"d{i}" / name).symlink_to(tmp_path / f"d{i + 1}")
    (tmp_path / "d25").mkdir()
    with pytest.raises(UserError, match="one folder, linked twice"):
        list_files(tmp_path)
    root = tmp_path / "set"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "d25")
    (root / "copy").symlink_to(tmp_path / "d25")
    (tmp_path / "d25" / "a.jpg").write_bytes(b"1")
    assert len(list_files(root, ("train",)).media) == 1


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert list_files(tmp_path).ignored == {"no regular file (a pipe, a socket, a device)": 1}


def test_many_files_are_listed_in_linear_time(tmp_path):
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for name in range(500):
            (tmp_path / str(folder) / f"{name}.jpg").touch()
    began = time.process_time()
    assert len(list_files(tmp_path).media) == 5000
    assert time.process_time() - began < 2


def test_a_folder_that_may_not_be_listed_is_named(open_root):
    root = open_root / "input" / "toy"
    (root / "train" / "fake").chmod(0)
    answer = in_child(lambda: list_files(root), become_nobody)
    assert answer.startswith("UserError"), answer
    assert "train/fake: cannot be listed" in answer


def test_a_file_that_may_not_be_read_is_unreadable_not_the_end(open_root):
    path = open_root / "input" / "toy" / "test" / "1.png"
    path.chmod(0)
    answer = in_child(lambda: look_at(path.parent, "1.png").error, become_nobody)
    assert "Permission denied" in answer


# --- locales

SHOW = """
import sys
from src.cli.data import main
sys.exit(main(["--data", "toy"]))
"""


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, 0),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 2),
    ],
)
def test_other_locales_print_any_name_or_say_what_to_set(make_dataset, settings, code):
    root = make_dataset(["real/\u00e9.png", "fake/\u5317.png"])
    (root / "fake" / "bad \u00fc.png").write_bytes(b"broken")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**env, **settings}, capture_output=True, check=False,
        cwd=paths.REPO, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    if code:
        assert b"PYTHONUTF8=1" in done.stderr
    else:
        assert b"left out of training: 1" in done.stdout


COMMA = """
import locale, sys
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
import cv2, pandas as pd
from pathlib import Path
from src.artifacts.files import parse_column, read_csv, write_csv
from src.artifacts.oof import read_views, write_views
from src.strict_yaml import parse_yaml
path = Path(sys.argv[1])
numbers = [0.1 + 0.2, -1e-300, 12345.5]
write_csv(path, pd.DataFrame({"a": numbers}))
assert path.read_text() == "a\\n0.30000000000000004\\n-1e-300\\n12345.5\\n", path.read_text()
assert parse_column(read_csv(path, ["a"], what="x"), "a", float, path).tolist() == numbers
assert parse_yaml("a: 1.5e-3", "x") == {"a": 0.0015}
rows = pd.DataFrame({"item_id": list("abc"), "fold": 0, "view": "full", "logit": numbers})
write_views(path, rows, {})
assert read_views(path)[0]["logit"].tolist() == numbers
print("fine")
"""


@pytest.mark.skipif(shutil.which("localedef") is None, reason="no localedef to make a locale with")
def test_a_decimal_comma_changes_no_number(tmp_path):
    """LC_NUMERIC reaches C libraries once somebody calls setlocale; a dot stays a dot."""
    home = tmp_path / "de_DE.UTF-8"
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", home], capture_output=True, check=False
    )
    if not home.is_dir():
        pytest.skip(f"no de_DE to make a locale of: {made.stderr!r}")
    done = subprocess.run(
        [sys.executable, "-c", COMMA, tmp_path / "x.csv"], capture_output=True, check=False,
        env={**os.environ, "LOCPATH": str(tmp_path)}, cwd=paths.REPO, timeout=120,
    )  # fmt: skip
    assert done.stdout == b"fine\n", done.stderr
