"""Merging files of weights, several documents in one go."""

import subprocess
import sys
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
from src.soups.plan import read_plan
from tests.merging.cases import state


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Write three checkpoints; artefacts go into a folder of the test."""
    monkeypatch.setenv("RVF_ROOT", str(tmp_path / "root"))
    made = {name: tmp_path / f"{name}.safetensors" for name in "abc"}
    for seed, path in enumerate(made.values()):
        save_file(state(seed), path)
    return made


def _two(folder: Path, files: dict[str, Path], last: str = "c", where: str = "x") -> Path:
    (folder / where).mkdir(exist_ok=True)
    path = folder / where / "soup.yaml"
    path.write_text(
        f"name: first\nmerge_method: uniform\nmodels: [{files['a']}, {files['b']}]\n---\n"
        f"merge_method: uniform\nmodels: [first, {files[last]}]\n"
    )
    return path


def _left() -> list[str]:
    folder = paths.merge_parts()
    return [p.name for p in folder.rglob("*") if p.suffix != ".lock"] if folder.exists() else []


def test_the_same_merge_gives_the_same_bytes(tmp_path: Path, files: dict[str, Path]) -> None:
    plan, out = read_plan(_two(tmp_path, files)), tmp_path / "out.safetensors"
    merge_to_file(plan, out, "cpu")
    first = out.read_bytes()
    merge_to_file(plan, out, "cpu")
    assert out.read_bytes() == first
    a, b, c = (load_file(files[name])["head.weight"] for name in "abc")
    torch.testing.assert_close(load_file(out)["head.weight"], ((a + b) / 2 + c) / 2)
    assert not _left()


def test_plans_of_one_name_do_not_share_their_intermediates(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one runs, from beginning to end, between the two documents of the one."""
    plans = [read_plan(_two(tmp_path, files, last, last)) for last in "bc"]
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
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.artifacts.atomic.PATIENCE", 0)
    plan, out = read_plan(_two(tmp_path, files)), tmp_path / "out.safetensors"
    merge_to_file(plan, out, "cpu")
    (lock,) = paths.merge_parts().glob("*.lock")
    with file_lock(lock, "it"), pytest.raises(LockedError, match=r"out\.safetensors"):
        merge_to_file(plan, out, "cpu")


def test_a_killed_merge_of_documents_goes_on_to_the_same_bytes(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    plan, out = _two(tmp_path, files), tmp_path / "out.safetensors"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from src.merging.merger import Merger\n"
        "from src.soups.files import merge_to_file\n"
        "from src.soups.plan import read_plan\n"
        "whole, seen = Merger.tensor, []\n"
        "def tensor(self, name):\n"
        "    seen.append(name)\n"
        "    if len(seen) == 14: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(self, name)\n"
        "Merger.tensor = tensor\n"
        "merge_to_file(read_plan(Path(sys.argv[1])), Path(sys.argv[2]), 'cpu')\n"
    )
    command = [sys.executable, "-c", script, str(plan), str(out)]
    done = subprocess.run(command, cwd=paths.REPO, check=False, capture_output=True)
    assert done.returncode == -9
    assert "first.safetensors" in _left()
    report = merge_to_file(read_plan(plan), out, "cpu")
    assert report.resumed > 0
    resumed = out.read_bytes()
    merge_to_file(read_plan(plan), out, "cpu")
    assert out.read_bytes() == resumed
    assert not _left()


def test_the_last_document_is_checked_before_the_first_is_merged(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    less = state(2)
    del less["head.bias"]
    save_file(less, files["c"])
    monkeypatch.setattr(Merger, "tensor", lambda *_: pytest.fail("a tensor was merged"))
    with pytest.raises(UserError, match=r"lacks 1 tensor of first: 'head\.bias'"):
        merge_to_file(read_plan(_two(tmp_path, files)), tmp_path / "out.safetensors", "cpu")
    assert not _left()


def test_a_refusal_on_the_way_leaves_no_intermediate(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    bad = state(2)
    bad["head.bias"] = torch.tensor([float("nan")])
    save_file(bad, files["c"])
    with pytest.raises(UserError, match=r"'head\.bias' holds NaN"):
        merge_to_file(read_plan(_two(tmp_path, files)), tmp_path / "out.safetensors", "cpu")
    assert not _left()


def test_warnings_of_all_documents_are_told(tmp_path: Path, files: dict[str, Path]) -> None:
    files["b"].write_bytes(files["a"].read_bytes())
    report = merge_to_file(read_plan(_two(tmp_path, files)), tmp_path / "out.safetensors", "cpu")
    assert f"first: {files['a']} and {files['b']} are the same weights" in report.warnings


def test_outputs_and_estimates_are_refused_before_anything_is_done(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    folder = tmp_path / "dir.safetensors"
    folder.mkdir()
    plan = read_plan(_two(tmp_path, files))
    with pytest.raises(UserError, match="is a folder"):
        merge_to_file(plan, folder, "cpu")
    with pytest.raises(UserError, match="one of the inputs"):
        merge_to_file(plan, files["a"], "cpu")
    for name, beside in (("foreign", ()), ("record", ("record.json",))):
        mine = tmp_path / f"{name}.safetensors"
        save_file(state(5), mine, {"merge": "{}"} if beside else None)
        for other in beside:  # a merge that is a run has a record
            (tmp_path / other).write_text("{}")
        was = mine.read_bytes()
        with pytest.raises(UserError, match="not as this command wrote it"):
            merge_to_file(plan, mine, "cpu")
        assert mine.read_bytes() == was
    path = tmp_path / "fisher.yaml"
    models = ", ".join(f"{{model: {files[n]}, fisher: estimate}}" for n in "ab")
    path.write_text(f"merge_method: fisher\nmodels: [{models}]\n")
    with pytest.raises(UserError, match=r"`fisher: estimate` of .* needs training items"):
        merge_to_file(read_plan(path), tmp_path / "out.safetensors", "cpu")
    assert not _left()
