"""What all commands share: flags, exit codes, the choice of a data set."""

import os
import signal
import subprocess
import sys
import time

import pytest

from src.cli import parsers
from src.cli.common import choose_dataset, run_command
from src.cli.flags import Parser, add_compute, add_data
from src.errors import LockedError, UserError
from tests.conftest import REPO


@pytest.fixture
def parser():
    made = Parser("text", prog="x.py")
    made.add_argument("--model", required=True)
    made.add_argument("--weights")
    add_data(made)
    add_compute(made)
    return made


def refusal(parser: Parser, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        parser.parse_args(words)
    return str(caught.value)


# --- flags ---


@pytest.mark.parametrize(
    ("words", "typed", "meant"),
    [
        (["--modle", "a"], "--modle", "--model"),
        (["--model", "a", "--wieghts", "x"], "--wieghts", "--weights"),
        (["--model", "a", "--Data=x"], "--Data", "--data"),
        (["--devcie=cpu"], "--devcie", "--device"),
        (["--model", "a", "--inputroot", "x"], "--inputroot", "--input-root"),
    ],
)
def test_a_mistyped_flag_offers_the_nearest(parser, words, typed, meant):
    message = refusal(parser, *words)
    assert f"unknown argument '{typed}'; did you mean '{meant}'" in message
    assert "--precision" in message  # and lists the others


@pytest.mark.parametrize("flag", ["--mod", "--dat", "--work"])
def test_flags_are_not_abbreviated(parser, flag):
    assert f"unknown argument '{flag}'" in refusal(parser, "--model", "a", flag, "1")


def test_a_stray_word(parser):
    assert "unknown argument 'extra'" in refusal(parser, "--model", "a", "extra")


def test_argparses_own_complaints_show_the_usage(parser):
    for words, complaint in [
        ([], "required: --model"),
        (["--model"], "expected one argument"),
        (
            ["--model", "a", "--workers", "many"],
            "--workers: want a whole number from 0 on, found 'many'",
        ),
        (["--model", "a", "--precision", "fp8"], "invalid choice: 'fp8'"),
    ]:
        message = refusal(parser, *words)
        assert complaint in message
        assert "usage: x.py" in message


def test_values_are_read(parser):
    found = parser.parse_args(
        ["--model=a", "--data", "d", "--input-root", "in", "--scheme", "s", "--workers", "3"]
    )
    assert (found.model, found.data, str(found.input_root)) == ("a", "d", "in")
    assert (found.scheme, found.workers, found.device, found.precision) == ("s", 3, "auto", "auto")


def test_a_value_that_looks_like_a_flag(parser):
    found = parser.parse_args(["--model=--odd", "--weights=--x=y"])
    assert (found.model, found.weights) == ("--odd", "--x=y")


def test_words_of_the_command_line_are_the_default(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x.py", "--model", "fromargv"])
    assert parser.parse_args().model == "fromargv"
    monkeypatch.setattr(sys, "argv", ["x.py", "--modle", "fromargv"])
    with pytest.raises(UserError, match="--model"):
        parser.parse_args()


# --- exit codes ---


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (None, 0, ""),
        (UserError("mend this"), 2, "error: mend this\n"),
        (LockedError("busy"), 2, "error: busy\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(capsys, error, code, text):
    def main(argv):
        assert argv == ["--x"]
        if error is not None:
            raise error

    assert run_command(main, ["--x"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(text)
    assert err.count("\n") == (error is not None)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("serve", [], "stopped: no page is served any more\n"),
        ("watch", ["0"], "stopped: nothing is watched any more\n"),
        ("data", [], "interrupted; the same command goes on from here\n"),
    ],
)
def test_what_ctrl_c_says_is_of_the_command(name, words, said, capsys, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"src.cli.{parsers.HOMES.get(name, name)}.run_{name}", stop)
    assert parsers.main(name, words) == 130
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [RuntimeError, ValueError, UserError])
def test_an_interruption_that_a_library_made_another_error_of_is_one(error, capsys):
    """Ctrl-C in a class statement comes as a RuntimeError, in torch's C code as a ValueError."""

    def main(argv):
        try:
            os.kill(os.getpid(), signal.SIGTERM)  # SIGINT may be ignored where tests run
            time.sleep(5)
        except KeyboardInterrupt:
            raise error("could not determine the shape") from None

    assert run_command(main, []) == 130
    assert capsys.readouterr().err.startswith("interrupted")
    assert run_command(lambda argv: refuse_all(), []) == 2  # and it is forgotten


def refuse_all():
    raise UserError("no")


def test_a_bug_is_not_dressed_as_a_users_mistake():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main, [])


# --- data sets ---


@pytest.fixture
def home(artefact_root):
    (artefact_root / "input").mkdir()
    return artefact_root / "input"


def test_none(home):
    (home / "README.md").write_text("not a data set")
    (home / ".cache").mkdir()
    for place in (None, home / "absent"):
        with pytest.raises(UserError) as caught:
            choose_dataset(None, place)
        assert "--data demo" in str(caught.value)
        assert str(place or home) in str(caught.value)


def test_one_needs_no_name(home):
    (home / "cifake").mkdir()
    (home / ".ipynb_checkpoints").mkdir()
    (home / "README.md").write_text("not a data set")
    assert choose_dataset(None) == "cifake"
    assert choose_dataset("cifake") == "cifake"


def test_several_need_a_name(home):
    for name in ("dfdc", "cifake", "faces"):
        (home / name).mkdir()
    with pytest.raises(UserError) as caught:
        choose_dataset(None)
    assert "3 data sets" in str(caught.value)
    assert "--data {cifake,dfdc,faces}" in str(caught.value)
    assert choose_dataset("dfdc") == "dfdc"


@pytest.mark.parametrize("wanted", ["cifaek", "CIFAKE", "../input/cifake", "", "."])
def test_an_unknown_name(home, wanted):
    (home / "cifake").mkdir()
    with pytest.raises(UserError) as caught:
        choose_dataset(wanted)
    message = str(caught.value)
    assert f"unknown data set {wanted!r}" in message
    assert "cifake, demo" in message
    assert str(home) in message
    if wanted == "cifaek":
        assert "did you mean 'cifake'?" in message


def test_input_root(home, tmp_path):
    assert choose_dataset("demo") == "demo"  # which is always there
    (home / "cifake").mkdir()
    (tmp_path / "else" / "dfdc").mkdir(parents=True)
    assert choose_dataset(None, tmp_path / "else") == "dfdc"
    with pytest.raises(UserError, match="cifake"):
        choose_dataset("cifake", tmp_path / "else")


# --- the commands as processes ---


def test_a_mistyped_flag_ends_with_2_and_no_traceback(run_cli):
    done = run_cli("predict_ensemble.py", "--chekpoint", "x")
    assert done.returncode == 2
    assert "did you mean '--checkpoint'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


HEAVY = (
    "torch", "timm", "torchvision", "cv2", "albumentations", "numpy", "pandas", "sklearn", "scipy",
    "optuna",
)  # fmt: skip


@pytest.mark.parametrize("script", ["tune.py", "-m src"])
def test_help_and_all_flags_import_nothing_heavy_and_are_quick(script):
    code = f"""
import resource, runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {HEAVY!r}:
            raise AssertionError(name + " imported")
sys.meta_path.insert(0, Refuse())
from src.cli.parsers import COMMANDS, make_parser
for name in COMMANDS:
    make_parser(name)
sys.argv = ["x", "--help"]
try:
    {'runpy.run_module("src", run_name="__main__")' if script == "-m src"
     else f'runpy.run_path({str(REPO / script)!r}, run_name="__main__")'}
except SystemExit as end:
    assert not end.code, end.code
times = resource.getrusage(resource.RUSAGE_SELF)
print("cpu", times.ru_utime + times.ru_stime, file=sys.stderr)
"""  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert float(done.stderr.split()[-1]) < 0.5  # CPU seconds
