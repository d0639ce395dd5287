"""Merging files of weights, several documents in one go."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from src import paths
from src.artifacts.atomic import file_lock
from src.errors import LockedError, UserError
from src.merging.merger import Merger
from src.soups import files as module
from src.soups.files import merge_to_file
from src.soups.plan import MergePlan, read_plan
from tests.merging.cases import in_child, state, watched


@pytest.fixture(autouse=True)
def files(tmp_path: Path, artefact_root: Path) -> dict[str, Path]:
    """Write three checkpoints."""
    made = {name: tmp_path / f"{name}.safetensors" for name in "abc"}
    for seed, path in enumerate(made.values()):
        save_file(state(seed), path)
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def _two(files: dict[str, Path], last: str = "c") -> MergePlan:
    """Return a plan of two documents, of one name whatever `last` is."""
    path = files["a"].parent / last / "soup.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"name: first\nmerge_method: uniform\nmodels: [{files['a']}, {files['b']}]\n---\n"
        f"merge_method: uniform\nmodels: [first, {files[last]}]\n"
    )
    return read_plan(path)


def _left() -> list[str]:
    return [p.name for p in paths.merge_parts().rglob("*") if p.suffix != ".lock"]


def test_the_same_merge_gives_the_same_bytes(files: dict[str, Path], out: Path) -> None:
    merge_to_file(_two(files), out, "cpu")
    first = out.read_bytes()
    merge_to_file(_two(files), out, "cpu")
    assert out.read_bytes() == first
    a, b, c = (load_file(files[name])["head.weight"] for name in "abc")
    torch.testing.assert_close(load_file(out)["head.weight"], ((a + b) / 2 + c) / 2)
    assert not _left()


def test_plans_of_one_name_do_not_share_their_intermediates(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one runs, from beginning to end, between the two documents of the one."""
    plans = [_two(files, last) for last in "bc"]
    outs = [tmp_path / f"{n}.safetensors" for n in "xy"]
    want = []
    for plan, out in zip(plans, outs, strict=True):
        merge_to_file(plan, out, "cpu")
        want.append(out.read_bytes())
        out.unlink()
    whole, depth = module.merge_files, []

    def nested(recipe, *args, **kwargs):
        report = whole(recipe, *args, **kwargs)
        if recipe.name and not depth:
            depth.append(1)
            merge_to_file(plans[1], outs[1], "cpu")
        return report

    monkeypatch.setattr(module, "merge_files", nested)
    merge_to_file(plans[0], outs[0], "cpu")
    assert [out.read_bytes() for out in outs] == want


def test_two_processes_do_not_merge_documents_into_one_file(
    files: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.artifacts.atomic.PATIENCE", 0)
    merge_to_file(_two(files), out, "cpu")
    (lock,) = paths.merge_parts().glob("*.lock")
    with file_lock(lock, "it"), pytest.raises(LockedError, match=r"out\.safetensors"):
        merge_to_file(_two(files), out, "cpu")


def test_a_killed_merge_of_documents_goes_on_to_the_same_bytes(
    files: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        watched(patch, lambda done: done == 13 and os.kill(os.getpid(), signal.SIGKILL))
        assert in_child(lambda: merge_to_file(_two(files), out, "cpu")) == -signal.SIGKILL
    assert "first.safetensors" in _left()
    assert merge_to_file(_two(files), out, "cpu").resumed > 0
    resumed = out.read_bytes()
    merge_to_file(_two(files), out, "cpu")
    assert out.read_bytes() == resumed
    assert not _left()


def test_the_last_document_is_checked_before_the_first_is_merged(
    files: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    less = state(2)
    del less["head.bias"]
    save_file(less, files["c"])
    monkeypatch.setattr(Merger, "tensor", lambda *_: pytest.fail("a tensor was merged"))
    with pytest.raises(UserError, match=r"lacks 1 tensor of first: 'head\.bias'"):
        merge_to_file(_two(files), out, "cpu")
    assert not _left()


def test_a_refusal_on_the_way_leaves_no_intermediate(files: dict[str, Path], out: Path) -> None:
    save_file(state(2) | {"head.bias": torch.tensor([float("nan")])}, files["c"])
    with pytest.raises(UserError, match=r"'head\.bias' holds NaN"):
        merge_to_file(_two(files), out, "cpu")
    assert not _left()


def test_warnings_of_all_documents_are_told(files: dict[str, Path], out: Path) -> None:
    files["b"].write_bytes(files["a"].read_bytes())
    report = merge_to_file(_two(files), out, "cpu")
    assert f"first: {files['a']} and {files['b']} are the same weights" in report.warnings


def test_outputs_and_estimates_are_refused_before_anything_is_done(
    tmp_path: Path, files: dict[str, Path], out: Path
) -> None:
    folder = tmp_path / "dir.safetensors"
    folder.mkdir()
    foreign, run = (tmp_path / f"{name}.safetensors" for name in ("foreign", "run"))
    save_file(state(5), foreign)
    save_file(state(5), run, {"merge": "{}"})
    run.with_suffix(".json").write_text("{}")  # a merge that is a run has a record
    was = foreign.read_bytes(), run.read_bytes()
    for output, said in (
        (folder, "is a folder"),
        (files["a"], "one of the inputs"),
        (foreign, "not as this command wrote it"),
        (run, "not as this command wrote it"),
    ):
        with pytest.raises(UserError, match=said):
            merge_to_file(_two(files), output, "cpu")
    assert (foreign.read_bytes(), run.read_bytes()) == was
    path = tmp_path / "fisher.yaml"
    models = ", ".join(f"{{model: {files[n]}, fisher: estimate}}" for n in "ab")
    path.write_text(f"merge_method: fisher\nmodels: [{models}]\n")
    with pytest.raises(UserError, match=r"`fisher: estimate` of .* needs training items"):
        merge_to_file(read_plan(path), out, "cpu")
    assert not _left()
