"""Ranks of a run without torchrun: forked from this process, which has imported all they need."""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from torch import distributed

from src.compute import ranks


def _fork(rank: int, count: int, port: int, work: Callable[[int], object], folder: Path) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
        from src.cli.common import run_command

        def command(_: object) -> None:
            with ranks.member():
                work(rank)

        code = run_command(command, [])
    except BaseException:  # noqa: BLE001 - this process is a copy of pytest, and must end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(process: int) -> int:
    """Return the exit code of a rank; one that is stopped is killed, as torchrun does at last."""
    status = os.waitpid(process, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    return os.waitstatus_to_exitcode(status)


def run_ranks(count: int, work: Callable[[int], object]) -> tuple[list[int], str]:
    """Let ranks do `work(rank)`.

    Returns their exit codes (minus a signal that ended one), and all that was said of errors.
    """
    # As torchrun does, what ranks are told by is kept by who started them.
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.stdout.flush()
        sys.stderr.flush()
        started = [_fork(rank, count, store.port, work, folder) for rank in range(count)]
        codes = [_ended(process) for process in started]
        said = [(folder / f"{rank}.err").read_text().splitlines() for rank in range(count)]
    # torch was imported before anybody could tell it not to warn.
    lines = [line for each in said for line in each if not line.startswith("[rank")]
    return codes, "\n".join(lines)
