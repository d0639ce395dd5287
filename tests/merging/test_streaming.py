"""Merging files: what is written, what resumes, what is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from src.errors import LockedError, UserError
from src.merging.merger import Merger, merge_tensors
from src.merging.recipe import Ingredient, MergeRecipe
from src.merging.sources import open_source
from src.merging.streaming import merge_files
from src.merging.writer import PartFile
from tests.merging.cases import recipe_of, state

NAMES = ["a", "b", "c"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Write four checkpoints."""
    made = {}
    for seed, name in enumerate([*NAMES, "base"]):
        made[name] = tmp_path / f"{name}.safetensors"
        save_file(state(seed), made[name], {"config": f"of {name}"})
    return made


def _states(files):
    return {name: load_file(path) for name, path in files.items()}


def _part(output: Path) -> Path:
    return output.with_name(f".{output.name}.part")


@pytest.mark.parametrize("name", ["linear", "ties", "slerp"])
def test_files_give_what_memory_gives(files, tmp_path, name):
    recipe = recipe_of(name, NAMES)
    report = merge_files(recipe, files, tmp_path / "new" / "out.safetensors")
    merged = load_file(report.path)
    want = merge_tensors(recipe, _states(files))
    assert merged.keys() == want.keys()
    assert all(torch.equal(merged[key], want[key]) for key in want)
    assert (report.tensors, report.copied, report.resumed) == (len(want), 2, 0)
    assert report.size == report.path.stat().st_size
    assert [path.name for path in report.path.parent.iterdir()] == ["out.safetensors"]


def test_metadata_and_the_recipe_travel(files, tmp_path):
    output = tmp_path / "out.safetensors"
    report = merge_files(recipe_of("ties", NAMES, seed=7), files, output)
    with safe_open(output, "pt") as file:
        metadata = file.metadata()
    assert metadata["config"] == "of base"
    for said in (report.fingerprint, '"seed": 7', '"merge_method": "ties"'):
        assert said in metadata["merge"]
    merge_files(recipe_of("uniform", NAMES), files, output, metadata={"x": "y"})
    with safe_open(output, "pt") as file:
        assert sorted(file.metadata()) == ["merge", "x"]


@pytest.mark.parametrize("out_dtype", ["float16", "bfloat16", "float64"])
def test_the_output_may_have_another_dtype(files, tmp_path, out_dtype):
    recipe = MergeRecipe("uniform", tuple(Ingredient(n) for n in NAMES), out_dtype=out_dtype)
    merged = load_file(merge_files(recipe, files, tmp_path / "out.safetensors").path)
    assert merged["stem.weight"].dtype == getattr(torch, out_dtype)
    assert merged["index"].dtype == torch.int64


def _run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )


class _Stopped(BaseException):
    pass


def _stop_after(monkeypatch, count):
    seen = []
    whole = Merger.tensor

    def tensor(self, name):
        if len(seen) == count:
            raise _Stopped
        seen.append(name)
        return whole(self, name)

    monkeypatch.setattr(Merger, "tensor", tensor)
    return seen


def test_a_stopped_merge_goes_on_where_it_was(files, tmp_path, monkeypatch):
    output, recipe = tmp_path / "out.safetensors", recipe_of("dare_ties", NAMES, density=0.5)
    whole = merge_files(recipe, files, tmp_path / "whole.safetensors").path.read_bytes()
    with monkeypatch.context() as patch:
        first = _stop_after(patch, 4)
        with pytest.raises(_Stopped):
            merge_files(recipe, files, output)
    assert not output.exists()
    with _part(output).open("ab") as file:
        file.write(b"half a tensor")
    with monkeypatch.context() as patch:
        second = _stop_after(patch, 100)
        report = merge_files(recipe, files, output)
    assert report.resumed == 4
    assert not set(first) & set(second)
    assert output.read_bytes() == whole
    assert not _part(output).exists()


@pytest.mark.parametrize("change", ["recipe", "input"])
def test_a_part_of_another_merge_is_begun_again(files, tmp_path, monkeypatch, change):
    output, recipe = tmp_path / "out.safetensors", recipe_of("ties", NAMES)
    with monkeypatch.context() as patch:
        _stop_after(patch, 4)
        with pytest.raises(_Stopped):
            merge_files(recipe, files, output)
    if change == "recipe":
        recipe = recipe_of("ties", NAMES, density=0.5)
    else:
        save_file(state(9), files["a"])
    assert merge_files(recipe, files, output).resumed == 0
    want = merge_tensors(recipe, _states(files))
    assert all(torch.equal(tensor, want[key]) for key, tensor in load_file(output).items())


def test_a_finished_stage_is_kept_if_it_is_of_this_merge(files, tmp_path, monkeypatch):
    output, recipe = tmp_path / "out.safetensors", recipe_of("ties", NAMES)
    first = merge_files(recipe, files, output)
    stamp = output.stat().st_mtime_ns
    seen = _stop_after(monkeypatch, 100)
    again = merge_files(recipe, files, output, keep=True)
    assert (seen, again.resumed, again.warnings) == ([], first.tensors, first.warnings)
    assert output.stat().st_mtime_ns == stamp
    merge_files(recipe_of("ties", NAMES, density=0.5), files, output, keep=True)
    assert len(seen) == first.tensors
    monkeypatch.undo()
    want = merge_tensors(recipe_of("ties", NAMES, density=0.5), _states(files))
    assert all(torch.equal(tensor, want[key]) for key, tensor in load_file(output).items())


def test_a_killed_process_leaves_a_part_that_goes_on(files, tmp_path):
    output = tmp_path / "out.safetensors"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from src.merging.merger import Merger\n"
        "from src.merging.read_recipe import parse_recipes\n"
        "from src.merging.streaming import merge_files\n"
        "whole, seen = Merger.tensor, []\n"
        "def tensor(self, name):\n"
        "    seen.append(name)\n"
        "    if len(seen) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(self, name)\n"
        "Merger.tensor = tensor\n"
        "folder = Path(sys.argv[1])\n"
        "(recipe,) = parse_recipes('merge_method: uniform\\nmodels: [a, b]', 'x')\n"
        "merge_files(recipe, {n: folder / f'{n}.safetensors' for n in 'ab'},\n"
        "            folder / 'out.safetensors')\n"
    )
    done = _run(script, tmp_path)
    assert done.returncode == -9
    recipe = MergeRecipe("uniform", (Ingredient("a"), Ingredient("b")))
    report = merge_files(recipe, files, output)
    assert report.resumed == 5
    want = merge_tensors(recipe, _states(files))
    assert all(torch.equal(tensor, want[key]) for key, tensor in load_file(output).items())


def test_a_failed_merge_leaves_the_former_output(files, tmp_path):
    output = tmp_path / "out.safetensors"
    merge_files(recipe_of("uniform", NAMES), files, output)
    before = output.read_bytes()
    bad = state(1)
    bad["head.bias"] = torch.tensor([float("nan")])
    save_file(bad, files["b"])
    with pytest.raises(UserError, match=r"b: tensor 'head\.bias' holds NaN or infinity at 1 of 1"):
        merge_files(recipe_of("uniform", NAMES), files, output)
    assert output.read_bytes() == before


def test_too_little_room_is_said_before_a_byte_is_merged(files, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    seen = _stop_after(monkeypatch, 100)
    with pytest.raises(UserError, match="MB are still to be written"):
        merge_files(recipe_of("uniform", NAMES), files, tmp_path / "out.safetensors")
    assert not seen


def test_a_disk_that_fills_up_keeps_what_was_written(files, tmp_path):
    """A limit on file sizes stops the writer as a full disk does."""
    recipe = MergeRecipe("uniform", (Ingredient("a"), Ingredient("b")))
    size = merge_files(recipe, files, tmp_path / "whole.safetensors").size
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from src.errors import UserError\n"
        "from src.merging.read_recipe import parse_recipes\n"
        "from src.merging.streaming import merge_files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "folder = Path(sys.argv[1])\n"
        "(recipe,) = parse_recipes('merge_method: uniform\\nmodels: [a, b]', 'x')\n"
        "try: merge_files(recipe, {n: folder / f'{n}.safetensors' for n in 'ab'},\n"
        "                 folder / 'out.safetensors')\n"
        "except UserError as error: print(error)\n"
    )
    done = _run(script, tmp_path, size - 40)
    assert "out.safetensors: not written, the file is larger than this disk" in done.stdout
    report = merge_files(recipe, files, tmp_path / "out.safetensors")
    assert report.resumed > 0


def test_two_processes_do_not_write_one_file(files, tmp_path):
    output = tmp_path / "out.safetensors"
    with PartFile(output, {}, {}), pytest.raises(LockedError, match="another process"):
        merge_files(recipe_of("uniform", NAMES), files, output)


def test_identical_models_and_a_model_that_learnt_nothing_are_named(files, tmp_path, monkeypatch):
    shutil.copy(files["a"], files["b"])
    shutil.copy(files["base"], files["c"])
    recipe, output = recipe_of("ties", NAMES), tmp_path / "out.safetensors"
    said = [
        "a and b are the same weights",
        "c equals the base base: it has learnt nothing to merge",
        "'index' holds integers that differ between the models: copied from base",
    ]
    changed = {**_states(files)["b"], "index": torch.zeros(2, 3, dtype=torch.int64)}
    for name in "ab":
        save_file(changed, files[name])
    assert list(merge_files(recipe, files, output).warnings) == said
    with monkeypatch.context() as patch:
        _stop_after(patch, 8)
        with pytest.raises(_Stopped):
            merge_files(recipe, files, output)
    report = merge_files(recipe, files, output)
    assert report.resumed == 8
    assert set(said[:2]) <= set(report.warnings)


def test_missing_tensors_are_named(files, tmp_path):
    less = state(1)
    del less["head.bias"]
    save_file(less, files["b"])
    with pytest.raises(UserError, match=r"b lacks 1 tensor of a: 'head\.bias'"):
        merge_files(recipe_of("uniform", NAMES), files, tmp_path / "out.safetensors")


def test_fisher_files(files, tmp_path):
    for name in "ab":
        fisher = {k: v.square() for k, v in state(5).items() if v.is_floating_point()}
        save_file(fisher, tmp_path / f"{name}.fisher.safetensors")
    models = tuple(
        Ingredient(n, {}, {"fisher": str(tmp_path / f"{n}.fisher.safetensors")}) for n in "ab"
    )
    merged = load_file(
        merge_files(MergeRecipe("fisher", models), files, tmp_path / "o.safetensors").path
    )
    want = merge_tensors(recipe_of("uniform", ["a", "b"]), _states(files))
    torch.testing.assert_close(merged["stem.weight"], want["stem.weight"])  # equally sure: the mean
    fisher.pop("head.bias")
    save_file(fisher, tmp_path / "b.fisher.safetensors")
    with pytest.raises(UserError, match=r"lacks tensor 'head\.bias'"):
        merge_files(MergeRecipe("fisher", models), files, tmp_path / "o.safetensors")


def test_outputs_that_make_no_sense(files, tmp_path):
    recipe = recipe_of("uniform", NAMES)
    with pytest.raises(UserError, match="one of the inputs"):
        merge_files(recipe, files, files["a"])
    with pytest.raises(UserError, match=r"written as \.safetensors"):
        merge_files(recipe, files, tmp_path / "out.pth")
    with pytest.raises(UserError, match="no weights of 'c'"):
        merge_files(recipe, {n: files[n] for n in "ab"}, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob(".*"))


def test_an_overflow_of_the_output_is_named(tmp_path):
    save_file({"w": torch.full((3,), 1e6)}, tmp_path / "a.safetensors")
    recipe = MergeRecipe("uniform", (Ingredient("a"),), out_dtype="float16")
    with pytest.raises(UserError, match="'w' became NaN or infinite as float16"):
        merge_files(recipe, {"a": tmp_path / "a.safetensors"}, tmp_path / "o.safetensors")


def _write_evil(path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"state_dict": {"w": torch.ones(1)}, "more": Evil()}, path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.pth", lambda p: None, "no such weights file"),
        ("a.txt", lambda p: p.write_text("x"), "one of .safetensors"),
        ("a.safetensors", lambda p: p.write_bytes(b"12345678" * 9), "not a readable weights file"),
        ("a.pth", lambda p: p.write_bytes(b"nothing"), "not a readable weights file"),
        ("a.bin", lambda p: torch.save([1], p), "holds a list"),
        ("a.pt", lambda p: torch.save({"epoch": 3}, p), "holds no tensors; its keys are"),
        ("e.pth", _write_evil, "could run code"),
    ],
)  # fmt: skip
def test_unreadable_files_are_refused(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / name)
    assert message in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_are_read_mapped_or_not(tmp_path, legacy):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state(1)}, path, _use_new_zipfile_serialization=not legacy)
    source = open_source(path)
    assert all(torch.equal(source.read(name), tensor) for name, tensor in state(1).items())
