"""Merging files: what is written, what resumes, what is refused."""

import os
import resource
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from src.artifacts import atomic
from src.errors import LockedError, UserError
from src.merging.merger import merge_tensors
from src.merging.recipe import Ingredient, MergeRecipe
from src.merging.streaming import TensorFile, check_documents, merge_files
from tests.merging.cases import in_child, recipe_of, state, watched

NAMES = ["a", "b", "c"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Write four checkpoints."""
    made = {name: tmp_path / f"{name}.safetensors" for name in [*NAMES, "base"]}
    for seed, (name, path) in enumerate(made.items()):
        save_file(state(seed), path, {"config": f"of {name}"})
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def _is_merge(path: Path, recipe: MergeRecipe, files: dict[str, Path]) -> bool:
    """Tell whether a file is what the merge in memory gives, bit by bit."""
    want = merge_tensors(recipe, {name: load_file(file) for name, file in files.items()})
    merged = load_file(path)
    return merged.keys() == want.keys() and all(torch.equal(merged[k], want[k]) for k in want)


def _part(output: Path) -> Path:
    return output.with_name(f".{output.name}.part")


def _linear(*weights: float, name: str = "") -> MergeRecipe:
    models = (Ingredient(n, {"weight": w}) for n, w in zip("ab", weights, strict=True))
    return MergeRecipe("linear", tuple(models), name=name)


class _Stopped(BaseException):
    pass


def _stop_after(patch, count: int) -> list[str]:
    def stop(done: int) -> None:
        if done == count:
            raise _Stopped

    return watched(patch, stop)


def _begin(monkeypatch, recipe: MergeRecipe, files: dict[str, Path], out: Path, count: int):
    """Merge so many tensors and stop; returns their names."""
    with monkeypatch.context() as patch:
        seen = _stop_after(patch, count)
        with pytest.raises(_Stopped):
            merge_files(recipe, files, out)
    return seen


@pytest.mark.parametrize("name", ["linear", "ties", "slerp"])
def test_files_give_what_memory_gives(files, tmp_path, name):
    recipe = recipe_of(name, NAMES)
    report = merge_files(recipe, files, tmp_path / "new" / "out.safetensors")
    assert _is_merge(report.path, recipe, files)
    assert (report.tensors, report.copied, report.resumed) == (len(state(0)), 2, 0)
    assert report.size == report.path.stat().st_size
    assert [path.name for path in report.path.parent.iterdir()] == ["out.safetensors"]


def test_metadata_and_the_recipe_travel(files, out):
    report = merge_files(recipe_of("ties", NAMES, seed=7), files, out)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["config"] == "of base"
    for said in (report.fingerprint, '"seed": 7', '"merge_method": "ties"'):
        assert said in metadata["merge"]
    merge_files(recipe_of("uniform", NAMES), files, out, metadata={"x": "y"})
    with safe_open(out, "pt") as file:
        assert sorted(file.metadata()) == ["merge", "x"]


@pytest.mark.parametrize("out_dtype", ["float16", "bfloat16", "float64"])
def test_the_output_may_have_another_dtype(files, out, out_dtype):
    recipe = MergeRecipe("uniform", tuple(Ingredient(n) for n in NAMES), out_dtype=out_dtype)
    merged = load_file(merge_files(recipe, files, out).path)
    assert merged["stem.weight"].dtype == getattr(torch, out_dtype)
    assert merged["index"].dtype == torch.int64


def test_a_stopped_merge_goes_on_where_it_was(files, tmp_path, out, monkeypatch):
    recipe = recipe_of("dare_ties", NAMES, density=0.5)
    whole = merge_files(recipe, files, tmp_path / "whole.safetensors").path.read_bytes()
    first = _begin(monkeypatch, recipe, files, out, 4)
    assert not out.exists()
    with _part(out).open("ab") as file:
        file.write(b"half a tensor")
    second = _stop_after(monkeypatch, 100)
    assert merge_files(recipe, files, out).resumed == 4
    assert not set(first) & set(second)
    assert out.read_bytes() == whole
    assert not _part(out).exists()


@pytest.mark.parametrize("change", ["recipe", "input"])
def test_a_part_of_another_merge_is_begun_again(files, out, monkeypatch, change):
    recipe = recipe_of("ties", NAMES)
    _begin(monkeypatch, recipe, files, out, 4)
    if change == "recipe":
        recipe = recipe_of("ties", NAMES, density=0.5)
    else:
        save_file(state(9), files["a"])
    assert merge_files(recipe, files, out).resumed == 0
    assert _is_merge(out, recipe, files)


def test_a_finished_stage_is_kept_if_it_is_of_this_merge(files, out, monkeypatch):
    recipe, other = recipe_of("ties", NAMES), recipe_of("ties", NAMES, density=0.5)
    first = merge_files(recipe, files, out)
    stamp = out.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        seen = _stop_after(patch, 100)
        again = merge_files(recipe, files, out, keep=True)
        assert (seen, again.resumed, again.warnings) == ([], first.tensors, first.warnings)
        assert out.stat().st_mtime_ns == stamp
        merge_files(other, files, out, keep=True)
        assert len(seen) == first.tensors
    assert _is_merge(out, other, files)


def test_a_killed_process_leaves_a_part_that_goes_on(files, out, monkeypatch):
    recipe = recipe_of("uniform", NAMES)
    with monkeypatch.context() as patch:
        watched(patch, lambda done: done == 5 and os.kill(os.getpid(), signal.SIGKILL))
        assert in_child(lambda: merge_files(recipe, files, out)) == -signal.SIGKILL
    assert merge_files(recipe, files, out).resumed == 5
    assert _is_merge(out, recipe, files)


def test_a_disk_that_fills_up_keeps_what_was_written(files, tmp_path, out):
    """A limit on file sizes stops the writer as a full disk does."""
    recipe, said = recipe_of("uniform", NAMES), tmp_path / "said.txt"
    size = merge_files(recipe, files, tmp_path / "whole.safetensors").size

    def merge_small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 40, size - 40))
        with pytest.raises(UserError) as caught:
            merge_files(recipe, files, out)
        said.write_text(str(caught.value))

    assert in_child(merge_small) == 0
    assert f"{out}: not written, the file is larger than this disk" in said.read_text()
    assert merge_files(recipe, files, out).resumed > 0


def test_a_failed_merge_leaves_the_former_output(files, out):
    merge_files(recipe_of("uniform", NAMES), files, out)
    before = out.read_bytes()
    save_file(state(1) | {"head.bias": torch.tensor([float("nan")])}, files["b"])
    with pytest.raises(UserError, match=r"b: tensor 'head\.bias' holds NaN or infinity at 1 of 1"):
        merge_files(recipe_of("uniform", NAMES), files, out)
    assert out.read_bytes() == before


def test_too_little_room_is_said_before_a_byte_is_merged(files, out, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    seen = _stop_after(monkeypatch, 100)
    with pytest.raises(UserError, match="MB are still to be written"):
        merge_files(recipe_of("uniform", NAMES), files, out)
    assert not seen


def test_a_part_taken_over_is_emptied_before_its_header_is_written(files, out, monkeypatch):
    """Killed between the two, old tensors would lie behind a new header and count as whole."""
    _begin(monkeypatch, _linear(1.0, 1.0), files, out, 6)
    assert _part(out).stat().st_size > 0
    whole = TensorFile._write

    def write_and_die(self, data):
        whole(self, data)
        raise _Stopped

    with monkeypatch.context() as patch:
        patch.setattr(TensorFile, "_write", write_and_die)
        with pytest.raises(_Stopped):
            merge_files(_linear(3.0, 1.0), files, out)
    assert merge_files(_linear(3.0, 1.0), files, out).resumed == 0
    assert _is_merge(out, _linear(3.0, 1.0), files)


def test_a_lock_is_of_the_part_that_lies_there(files, tmp_path, out, monkeypatch):
    """Another process finishes between our opening and our locking: its file must stay whole."""
    other = merge_files(_linear(1.0, 1.0), files, tmp_path / "other.safetensors").path
    lock, locked, whole = atomic._lock, [], []

    def late(descriptor: int) -> bool | None:
        if not locked:
            _part(out).write_bytes(other.read_bytes())
            _part(out).replace(out)
        locked.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(atomic, "_lock", late)
    watched(monkeypatch, lambda _: whole.append(out.read_bytes() == other.read_bytes()))
    merge_files(_linear(3.0, 1.0), files, out)
    assert len(locked) == 2
    assert whole
    assert all(whole)
    monkeypatch.undo()
    assert _is_merge(out, _linear(3.0, 1.0), files)


def test_two_processes_do_not_write_one_file(files, out):
    with TensorFile(out, {}, {}), pytest.raises(LockedError, match="another process"):
        merge_files(recipe_of("uniform", NAMES), files, out)


def test_identical_models_and_a_model_that_learnt_nothing_are_named(files, out, monkeypatch):
    changed = load_file(files["a"]) | {"index": torch.zeros(2, 3, dtype=torch.int64)}
    for name in "ab":
        save_file(changed, files[name])
    shutil.copy(files["base"], files["c"])
    recipe = recipe_of("ties", NAMES)
    said = [
        "a and b are the same weights",
        "c equals the base base: it has learnt nothing to merge",
        "'index' holds integers that differ between the models: copied from base",
    ]
    assert list(merge_files(recipe, files, out).warnings) == said
    _begin(monkeypatch, recipe, files, out, 8)
    report = merge_files(recipe, files, out)
    assert report.resumed == 8
    assert set(said[:2]) <= set(report.warnings)


def _with_fisher(folder: Path) -> MergeRecipe:
    fisher = {k: v.square() for k, v in state(5).items() if v.is_floating_point()}
    models = []
    for name in "ab":
        file = folder / f"{name}.fisher.safetensors"
        save_file(fisher, file)
        models.append(Ingredient(name, {}, {"fisher": str(file)}))
    return MergeRecipe("fisher", tuple(models))


def test_fisher_files(files, tmp_path, out):
    recipe, file = _with_fisher(tmp_path), tmp_path / "b.fisher.safetensors"
    merged = load_file(merge_files(recipe, files, out).path)
    a, b = (load_file(files[name])["stem.weight"] for name in "ab")
    torch.testing.assert_close(merged["stem.weight"], (a + b) / 2)  # equally sure: the mean
    before, fisher = file.read_bytes(), load_file(file)
    with pytest.raises(UserError, match="'fisher of b', one of the inputs"):
        merge_files(recipe, files, file)
    assert file.read_bytes() == before
    for value in (float("nan"), float("inf")):
        save_file(fisher | {"head.weight": torch.full((1, 4), value)}, file)
        with pytest.raises(UserError, match=r"b\.fisher\.safetensors: tensor 'head\.weight' holds"):
            merge_files(recipe, files, out)
    save_file(fisher | {"head.weight": torch.ones(4)}, file)
    with pytest.raises(UserError, match=r"'head\.weight' is \(4,\), want \(1, 4\)"):
        merge_files(recipe, files, out)
    del fisher["head.bias"]
    save_file(fisher, file)
    with pytest.raises(UserError, match=r"lacks tensor 'head\.bias'"):
        merge_files(recipe, files, out)


def test_a_weight_a_model_written_as_a_gradient_is_named(files, out):
    models = (Ingredient("a"), Ingredient("b"))
    weights = {"weight": (1.0, 3.0)}
    (said,) = merge_files(MergeRecipe("linear", models, "", weights), files, out).warnings
    assert "is a gradient over depth" in said
    assert "divided by its sum it changes nothing" in said
    longer = {"weight": (1.0, 3.0, 1.0)}
    own = (Ingredient("a", {"weight": 2.0}), Ingredient("b"))
    for recipe in (
        MergeRecipe("task_arithmetic", models, "base", longer),
        MergeRecipe("linear", own, "", longer),
    ):
        assert not merge_files(recipe, files, out).warnings


def test_a_merge_of_an_intermediate_is_told_by_what_made_it(files, out):
    recipe = _linear(1.0, 3.0)
    first = merge_files(recipe, files, out, stamps={"a": "x"}).path.read_bytes()
    os.utime(files["a"], ns=(1, 1))
    assert merge_files(recipe, files, out, stamps={"a": "x"}).path.read_bytes() == first
    assert merge_files(recipe, files, out, stamps={"a": "y"}).path.read_bytes() != first


def test_all_documents_are_checked_without_reading_a_tensor(files, monkeypatch):
    seen = _stop_after(monkeypatch, 0)
    less = state(1)
    del less["head.bias"]
    save_file(less, files["c"])
    first = _linear(1.0, 1.0, name="s")
    check_documents([first, MergeRecipe("uniform", (Ingredient("s"), Ingredient("a")))], files)
    with pytest.raises(UserError, match=r"c lacks 1 tensor of s: 'head\.bias'"):
        check_documents([first, MergeRecipe("uniform", (Ingredient("s"), Ingredient("c")))], files)
    assert not seen


def test_outputs_that_make_no_sense(files, tmp_path, out):
    recipe = recipe_of("uniform", NAMES)
    (tmp_path / "folder.safetensors").mkdir()
    for output, said in (
        (Path("/proc/out.safetensors"), "no file can be made there"),
        (tmp_path / "folder.safetensors", "is a folder"),
        (files["a"], "one of the inputs"),
        (tmp_path / "out.pth", r"written as \.safetensors"),
    ):
        with pytest.raises(UserError, match=said):
            merge_files(recipe, files, output)
    with pytest.raises(UserError, match="no weights of 'c'"):
        merge_files(recipe, {n: files[n] for n in "ab"}, out)
    assert not list(tmp_path.glob(".*"))


def test_an_overflow_of_the_output_is_named(tmp_path, out):
    save_file({"w": torch.full((3,), 1e6)}, tmp_path / "a.safetensors")
    recipe = MergeRecipe("uniform", (Ingredient("a"),), out_dtype="float16")
    with pytest.raises(UserError, match="'w' became NaN or infinite as float16"):
        merge_files(recipe, {"a": tmp_path / "a.safetensors"}, out)
