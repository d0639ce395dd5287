"""One of our commands as a process, where an engine runs it: the standard library alone.

Engines pickle this module by value, so that it runs where `src` is on no path. A command's output
goes to a log, how it began and ended to a small JSON: an engine may forget a job, nothing is lost.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEN_SECONDS = 0.2  # between two looks at a process
# The command ends with the process that waits for it, as after SIGTERM (it saves, and goes on
# later); SIGUSR2, which SLURM sends to all of a job before its time is over, is for us alone.
_SHIM = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class JobOrder:
    """What a worker is told: what to type, where, and where to write what came of it."""

    name: str  # of the job
    words: tuple[str, ...]  # that are typed after the interpreter
    python: str  # the interpreter
    folder: str  # where it is typed
    variables: Mapping[str, str]  # added to the environment
    log: str  # file that takes the output of both streams
    state: str  # JSON file that says how it began and ended
    token: str  # file that every machine must see
    secret: str  # what it holds


def out_of_sight(order: JobOrder) -> str:
    """Say that this machine does not share the launcher's files; "" where it does."""
    try:
        seen = Path(order.token).read_text()
    except OSError:
        seen = ""
    if seen == order.secret:
        return ""
    return (
        f"no shared file system: {socket.gethostname()} does not see {Path(order.token).parent} as "
        "it is here; put code and artefacts (RVF_ROOT) where all machines see them under one path"
    )


def run_order(
    order: JobOrder,
    variables: Mapping[str, str] | None = None,
    *,
    own_group: bool = True,
    begun: Callable[[subprocess.Popen[bytes]], object] | None = None,
) -> str:
    """Run a command to its end.

    Args:
        order: what to run.
        variables: of the environment, which only the worker knows.
        own_group: keep Ctrl-C and other signals to this process's group from the command.
        begun: is called with the process once it has begun.

    Returns:
        Why it could not begin; "" once it ended, and then its state says how.
    """
    if why := out_of_sight(order):
        return why
    words = [order.python, "-I", "-S", "-c", _SHIM, str(os.getpid()), order.python, *order.words]
    node, began = socket.gethostname(), time.time()
    typed = shlex.join(order.words).replace("\n", " ")
    with Path(order.log).open("ab") as log:
        log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {node}: {typed}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                words, cwd=order.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **order.variables, **(variables or {})},
                start_new_session=own_group,
            )  # fmt: skip
        except OSError as error:
            return f"{node}: {error}"
    state = {"words": list(order.words), "node": node, "began": began, "ended": None, "code": None}
    write_state(order.state, state)
    if begun is not None:
        begun(process)
    try:
        while process.poll() is None:
            time.sleep(SEEN_SECONDS)
    except BaseException:  # an engine's way to stop a job
        stop(process)
        raise
    finally:
        write_state(order.state, {**state, "ended": time.time(), "code": process.poll()})
    return ""


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Let a command save and end, and wait for that."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait()


def write_state(path: str, state: Mapping[str, Any]) -> None:
    """Write how a job stands, whole or not at all."""
    temporary = Path(f"{path}.{os.getpid()}.new")
    temporary.write_text(json.dumps(state) + "\n")
    temporary.replace(path)


def read_state(path: str | Path) -> dict[str, Any] | None:
    """Return how a job stands; None where nothing (readable) says it."""
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "code" in found and "words" in found else None
