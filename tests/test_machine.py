"""What a process may use, inside containers of both kinds and outside."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from src import machine
from src.machine import available_memory, cgroup_memory, cpu_count
from tests.conftest import REPO

MIB = 1 << 20


def write_group(folder: Path, limit: str, used: int, cache: int, version: int) -> None:
    names = ("memory.max", "memory.current") if version == 2 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes"
    )  # fmt: skip
    prefix = "" if version == 2 else "total_"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon 5\ninactive_anon 7\n{prefix}inactive_file {cache}\n{prefix}active_file {cache}\n"
    )


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_v2_in_a_container(proc, tmp_path):
    proc.write_text("0::/\n")
    write_group(tmp_path, str(100 * MIB), 60 * MIB, 5 * MIB, 2)
    assert cgroup_memory(proc, tmp_path) == 50 * MIB


def test_v2_the_tightest_of_the_groups_above(proc, tmp_path):
    proc.write_text("0::/user.slice/job\n")
    write_group(tmp_path / "user.slice/job", "max", 60 * MIB, 0, 2)
    write_group(tmp_path / "user.slice", str(70 * MIB), 60 * MIB, 0, 2)
    assert cgroup_memory(proc, tmp_path) == 10 * MIB


def test_v1_whose_path_is_the_hosts(proc, tmp_path):
    proc.write_text("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/docker/x\n")
    write_group(tmp_path / "memory", str(100 * MIB), 60 * MIB, 5 * MIB, 1)
    assert cgroup_memory(proc, tmp_path) == 50 * MIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_no_limit(proc, tmp_path, limit):
    proc.write_text("0::/\n")
    write_group(tmp_path, limit, 60, 0, 2)
    assert cgroup_memory(proc, tmp_path) is None


def test_over_the_limit_nothing_is_left(proc, tmp_path):
    proc.write_text("0::/\n")
    write_group(tmp_path, "10", 60, 0, 2)
    assert cgroup_memory(proc, tmp_path) == 0


def test_without_cgroups(tmp_path):
    assert cgroup_memory(tmp_path / "none", tmp_path) is None


def test_available_is_the_smaller(monkeypatch):
    monkeypatch.setattr(machine, "cgroup_memory", lambda: 5)
    assert available_memory() == 5
    monkeypatch.setattr(machine, "cgroup_memory", lambda: None)
    assert 0 < available_memory() <= psutil.virtual_memory().total


def test_cores_follow_the_environment(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert cpu_count() == 1


def test_what_is_freed_is_kept_where_the_c_library_can() -> None:
    assert machine.keep_freed_memory() in (True, False)


@pytest.mark.parametrize("less", [True, False])
def test_a_process_that_collects_less_ends_without_a_last_look_at_all_objects(less):
    code = """
import sys
from src.machine import collect_less
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): sys.stdout.write("collected ")
Cycle(); Cycle()
if sys.argv[1] == "True": collect_less(); collect_less()
import atexit; atexit.register(print, "other ends are met,")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(less)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("met,")[1].split() == ([] if less else ["collected"] * 2)
