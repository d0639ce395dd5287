"""How a file comes to be: rights, going on after a stop, folders of killed processes."""

import fcntl
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.artifacts.atomic import GrowingFile, file_lock, is_held, own_folder
from src.errors import LockedError
from tests.conftest import REPO

WRITE = "import sys; from pathlib import Path; from src.artifacts.files import write_text\n"
WRITE += "write_text(Path(sys.argv[1]), 'x')"


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_artefacts_honour_the_umask(tmp_path, umask, mode):
    path = tmp_path / "x.txt"
    subprocess.run([sys.executable, "-c", WRITE, path], cwd=REPO, umask=umask, check=True)
    assert path.stat().st_mode & 0o777 == mode


def test_who_looks_at_a_lock_is_never_taken_for_its_holder(tmp_path):
    lock = tmp_path / "run.lock"
    assert not is_held(lock)
    with file_lock(lock, "it"):
        assert is_held(lock)
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # another one that looks
        assert not is_held(lock)


class _Killed(BaseException):
    pass


@given(
    records=st.lists(st.binary(min_size=1, max_size=9), max_size=6),
    stop=st.integers(0, 6),
    torn=st.binary(max_size=12),
    blank=st.none() | st.integers(0, 5),
    other=st.booleans(),
)
def test_a_growing_file_goes_on_after_its_last_whole_record(
    tmp_path_factory, records, stop, torn, blank, other
):
    path = tmp_path_factory.mktemp("grow") / "out.bin"
    ends = [sum(map(len, records[: k + 1])) for k in range(len(records))]
    written = min(stop, len(records))
    with pytest.raises(_Killed), GrowingFile(path, b"HEAD", ends) as file:  # noqa: PT012
        for record in records[:written]:
            file.add(record)
        raise _Killed
    part = path.with_name(".out.bin.part")
    assert not path.exists()
    with part.open("r+b") as half:  # what a power cut leaves of the next record, or of these
        half.seek(0, 2)
        half.write(torn)
        if blank is not None and blank < written:
            half.seek(4 + ends[blank] - len(records[blank]))
            half.write(bytes(len(records[blank])))
    whole = written
    if blank is not None and blank < written and any(records[blank]):
        whole = blank
    again = GrowingFile(path, b"ELSE" if other else b"HEAD", ends, reserve=other)
    with again:
        assert again.done == (0 if other else whole)
        for record in records[again.done :]:
            again.add(record)
    assert again.is_there
    assert [file.name for file in path.parent.iterdir()] == ["out.bin"]
    assert path.read_bytes() == again.header + b"".join(records)
    assert again.size == path.stat().st_size


def test_a_growing_file_has_one_writer_and_takes_what_was_announced(tmp_path):
    path = tmp_path / "out.bin"
    with pytest.raises(ValueError, match="1 of 2 records"), GrowingFile(path, b"", [1, 3]) as file:  # noqa: PT012
        with pytest.raises(LockedError, match="another process is writing it"):
            GrowingFile(path, b"", [1, 3]).__enter__()
        with pytest.raises(ValueError, match=r"record 0 of .* another size"):
            file.add(b"two")
        file.add(b"1")
    assert not path.exists()


def test_a_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path):
    child = os.fork()
    if child == 0:
        with own_folder(tmp_path, ".making."):
            os._exit(0)  # without leaving the block
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    with own_folder(tmp_path, ".making.") as living:
        assert not left.exists()
        with own_folder(tmp_path, ".making.") as other:
            assert {path.name for path in tmp_path.iterdir()} == {living.name, other.name}
    assert not list(tmp_path.iterdir())


def test_a_child_does_not_keep_the_lock_of_a_parent_that_is_gone(tmp_path):
    """Loader processes outlive a killed run by seconds; nobody need wait for them."""
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from src.artifacts.atomic import file_lock\n"
        "with file_lock(Path(sys.argv[1]), 'x'):\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    else: os._exit(0)\n"
    )
    lock = tmp_path / "x.lock"
    process = subprocess.Popen([sys.executable, "-c", script, lock], cwd=REPO, process_group=0)
    try:
        assert process.wait() == 0
        with file_lock(lock, "x"):
            pass
    finally:
        os.killpg(process.pid, 9)
