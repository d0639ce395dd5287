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
from src.merging.streaming import check_documents, merge_files
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


class _Killed(BaseException):
    pass


def test_a_part_taken_over_is_emptied_before_its_header_is_written(files, tmp_path, monkeypatch):
    """Killed between the two, old tensors would lie behind a new header and count as whole."""
    output = tmp_path / "out.safetensors"
    with monkeypatch.context() as patch:
        _stop_after(patch, 6)
        with pytest.raises(_Stopped):
            merge_files(_linear(1.0, 1.0), files, output)
    assert _part(output).stat().st_size > 0

    def write_and_die(self, data):
        whole(self, data)
        raise _Killed

    whole = PartFile._write
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "_write", write_and_die)
        with pytest.raises(_Killed):
            merge_files(_linear(3.0, 1.0), files, output)
    assert merge_files(_linear(3.0, 1.0), files, output).resumed == 0
    want = merge_tensors(_linear(3.0, 1.0), _states(files))
    assert all(torch.equal(tensor, want[key]) for key, tensor in load_file(output).items())


def _linear(*weights):
    models = (Ingredient(n, {"weight": w}) for n, w in zip("ab", weights, strict=True))
    return MergeRecipe("linear", tuple(models))


def test_a_lock_is_of_the_part_that_lies_there(files, tmp_path, monkeypatch):
    """Another process finishes between our opening and our locking: its file must stay whole."""
    output = tmp_path / "out.safetensors"
    other = tmp_path / "other.safetensors"
    merge_files(_linear(1.0, 1.0), files, other)
    lock, locked = PartFile._lock, []

    def late(self):
        if not locked:
            _part(output).write_bytes(other.read_bytes())
            _part(output).replace(output)
        locked.append(self)
        lock(self)

    seen = []
    whole = Merger.tensor

    def tensor(self, name):
        seen.append(output.read_bytes() == other.read_bytes())
        return whole(self, name)

    monkeypatch.setattr(PartFile, "_lock", late)
    monkeypatch.setattr(Merger, "tensor", tensor)
    merge_files(_linear(3.0, 1.0), files, output)
    assert len(locked) == 2
    assert all(seen)
    want = merge_tensors(_linear(3.0, 1.0), _states(files))
    assert all(torch.equal(tensor, want[key]) for key, tensor in load_file(output).items())


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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_fisher_file_with_nan_is_named(files, tmp_path, value):
    recipe = _with_fisher(tmp_path)
    bad = load_file(tmp_path / "b.fisher.safetensors")
    bad["head.weight"][0, 0] = value
    save_file(bad, tmp_path / "b.fisher.safetensors")
    with pytest.raises(UserError, match=r"b\.fisher\.safetensors: tensor 'head\.weight' holds NaN"):
        merge_files(recipe, files, tmp_path / "out.safetensors")


def test_a_fisher_file_is_not_overwritten(files, tmp_path):
    recipe, fisher = _with_fisher(tmp_path), tmp_path / "a.fisher.safetensors"
    before = fisher.read_bytes()
    with pytest.raises(UserError, match="'fisher of a', one of the inputs"):
        merge_files(recipe, files, fisher)
    assert fisher.read_bytes() == before


def _with_fisher(folder: Path) -> MergeRecipe:
    for seed, name in enumerate("ab"):
        fisher = {k: v.square() for k, v in state(seed).items() if v.is_floating_point()}
        save_file(fisher, folder / f"{name}.fisher.safetensors")
    return MergeRecipe("fisher", tuple(
        Ingredient(n, {}, {"fisher": str(folder / f"{n}.fisher.safetensors")}) for n in "ab"
    ))  # fmt: skip


def test_a_weight_a_model_written_as_a_gradient_is_named(files, tmp_path):
    out = tmp_path / "o.safetensors"
    models = (Ingredient("a"), Ingredient("b"))
    report = merge_files(MergeRecipe("linear", models, "", {"weight": (1.0, 3.0)}), files, out)
    (said,) = (line for line in report.warnings if "gradient" in line)
    assert "divided by its sum it changes nothing" in said
    longer = MergeRecipe("task_arithmetic", models, "base", {"weight": (1.0, 3.0, 1.0)})
    assert not any("gradient" in line for line in merge_files(longer, files, out).warnings)
    own = (Ingredient("a", {"weight": 2.0}), Ingredient("b"))
    report = merge_files(MergeRecipe("linear", own, "", {"weight": (1.0, 3.0, 1.0)}), files, out)
    assert not any("gradient" in line for line in report.warnings)


def test_a_merge_of_an_intermediate_is_told_by_what_made_it(files, tmp_path):
    out, recipe = tmp_path / "out.safetensors", _linear(1.0, 3.0)
    first = merge_files(recipe, files, out, stamps={"a": "x"}).path.read_bytes()
    os.utime(files["a"], ns=(1, 1))
    assert merge_files(recipe, files, out, stamps={"a": "x"}).path.read_bytes() == first
    assert merge_files(recipe, files, out, stamps={"a": "y"}).path.read_bytes() != first


def test_all_documents_are_checked_without_reading_a_tensor(files, tmp_path, monkeypatch):
    seen = _stop_after(monkeypatch, 0)
    less = state(1)
    del less["head.bias"]
    save_file(less, files["c"])
    first = MergeRecipe("uniform", (Ingredient("a"), Ingredient("b")), name="s")
    check_documents([first, MergeRecipe("uniform", (Ingredient("s"), Ingredient("a")))], files)
    with pytest.raises(UserError, match=r"c lacks 1 tensor of s: 'head\.bias'"):
        check_documents([first, MergeRecipe("uniform", (Ingredient("s"), Ingredient("c")))], files)
    assert not seen


def test_outputs_that_make_no_sense(files, tmp_path):
    with pytest.raises(UserError, match="no file can be made there"):
        merge_files(recipe_of("uniform", NAMES), files, Path("/proc/out.safetensors"))
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        merge_files(recipe_of("uniform", NAMES), files, tmp_path / "folder.safetensors")
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
