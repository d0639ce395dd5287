"""Paths: functions of names, below one root that can be moved."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import paths
from src.errors import UserError
from tests.conftest import REPO

NAMES = {
    "dataset": "d", "scheme": "s", "model": "m", "fold": 3, "recipe": "r", "detector": "d",
    "checkpoint_sha256": "0", "key": "k", "stage": 0, "name": "n", "other": "o", "task": "t",
}  # fmt: skip


def makers() -> dict[str, tuple[Callable[..., Path], list[str]]]:
    """Return all that makes a path of names, and what names it wants."""
    found = {k: (v, v.names) for k, v in vars(paths).items() if isinstance(v, paths.Artefact)}
    for function in (paths.dataset_dir, paths.cross_views, paths.scorecard_csv):
        parameters = inspect.signature(function).parameters.values()
        wanted = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        found[function.__name__] = function, wanted
    return found


def all_paths() -> dict[str, Path]:
    return {key: make(*(NAMES[p] for p in wanted)) for key, (make, wanted) in makers().items()}


@given(st.text(st.characters(blacklist_characters="/", blacklist_categories=["Cs"]), min_size=1))
def test_slug_round_trip_of_timm_names(name):
    slug = paths.model_slug(f"timm:{name}")
    assert slug == f"timm--{name}"
    assert paths.model_from_slug(slug) == f"timm:{name}"


@pytest.mark.parametrize("name", ["compact32", "a.b-c_d", "x_timm", "mine--too"])
def test_slug_of_a_config_is_its_name(name):
    assert paths.model_slug(name) == name
    assert paths.model_from_slug(name) == name


def test_root_is_the_clone_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("RVF_ROOT", raising=False)
    assert paths.root() == REPO
    monkeypatch.setenv("RVF_ROOT", "")
    assert paths.root() == REPO


def test_rvf_root_moves_everything(monkeypatch, tmp_path):
    monkeypatch.delenv("RVF_ROOT", raising=False)
    at_home = all_paths()
    monkeypatch.setenv("RVF_ROOT", str(tmp_path))
    moved = all_paths()
    assert len(moved) > 15
    for name, path in moved.items():
        assert path.is_relative_to(tmp_path), name
        assert path.relative_to(tmp_path) == at_home[name].relative_to(REPO), name


def test_a_relative_root_does_not_move_with_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVF_ROOT", "here")
    assert paths.root() == tmp_path / "here"
    assert all(path.is_absolute() for path in all_paths().values())


def test_no_two_artefacts_share_a_path():
    found = list(all_paths().values())
    assert len(set(found)) == len(found)


def test_shipped_configs_are_found_wherever_the_root_is(artefact_root):
    assert paths.config_dirs("models") == [
        artefact_root / "configs" / "models",
        REPO / "configs" / "models",
    ]


def test_config_dirs_are_not_searched_twice(monkeypatch):
    monkeypatch.setenv("RVF_ROOT", str(REPO))
    assert paths.config_dirs("models") == [REPO / "configs" / "models"]


def test_input_root_replaces_input(artefact_root, tmp_path):
    assert paths.dataset_dir("cifake") == artefact_root / "input" / "cifake"
    assert paths.dataset_dir("cifake", tmp_path / "else") == tmp_path / "else" / "cifake"
    assert paths.dataset_dir("demo", tmp_path / "else") == artefact_root / ".cache" / "demo"


def test_design_section_5(artefact_root):
    root = artefact_root
    assert paths.folds_csv("d", "s") == root / "folds/d/s.csv"
    assert paths.excluded_csv("d", "s") == root / "folds/d/s.excluded.csv"
    assert paths.checkpoint("d", "s", "timm:m", 1) == root / (
        "checkpoints/d/s/timm--m/fold_1.safetensors"
    )
    assert paths.run_record("d", "s", "m", 1) == root / "checkpoints/d/s/m/fold_1.json"
    assert paths.run_state("d", "s", "m", 1) == root / "checkpoints/d/s/m/fold_1.state.pt"
    assert paths.oof_csv("d", "s", "timm:m", 1) == root / "oof/d/s/timm--m/fold_1.csv"
    assert paths.oof_views("d", "s", "m", 1) == root / "oof/d/s/m/fold_1.views.parquet"
    assert paths.test_views("d", "s", "m", 1) == root / "oof/d/s/m/test_fold_1.views.parquet"
    assert paths.recipe_json("d", "r") == root / "recipes/d/r.json"
    assert paths.submission_csv("d", "r") == root / "submissions/d/r.csv"


def test_nothing_absolute_is_baked_in():
    offenders = [
        path
        for folder in ("src", "configs")
        for path in (REPO / folder).rglob("*")
        if path.suffix in {".py", ".yaml"}
        and any(bad in path.read_text(encoding="utf-8") for bad in (str(REPO), "/home/", "/Users/"))
    ]
    assert offenders == []


def test_the_package_moves_with_the_clone(tmp_path):
    copy = tmp_path / "clone" / "src"
    copy.mkdir(parents=True)
    for name in ("__init__.py", "paths.py", "errors.py"):
        (copy / name).write_bytes((REPO / "src" / name).read_bytes())
    code = "from src import paths; print(paths.root(), paths.config_dirs('models')[0])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy.parent, env={}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(copy.parent), str(copy.parent / "configs" / "models")]


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", "a/b", "/etc/passwd", "a\nb", "a\0b", "\x1b[2Ja", "a\x9bb"]
)
def test_no_name_leads_out_of_its_folder(artefact_root, name):
    for what, (make, wanted) in makers().items():
        for bad in wanted:
            try:
                path = make(*(name if p == bad else NAMES[p] for p in wanted))
            except UserError as error:
                assert "want a plain name, no path" in str(error)  # noqa: PT017
            else:  # "..csv" is a file's name
                assert name in ("..", ".", ""), (what, bad)
                assert ".." not in path.parts, (what, bad)
                assert path.is_relative_to(artefact_root), (what, bad)
                assert len(path.parts) == len(make(*(NAMES[p] for p in wanted)).parts)


def test_a_path_wants_all_of_its_names():
    with pytest.raises(TypeError, match=r"wants .'dataset', 'scheme'"):
        paths.folds_csv("d")


def test_names_of_folders_as_people_have_them_are_plain():
    for name in (
        "a b",
        "caf\u00e9",
        "\u5317\u4eac",
        "x..y",
        "-x",
        "\U0001f468\u200d\U0001f4bb",
        "a\\b",
    ):
        assert paths.is_plain(name)
