"""Jobs that are quick: a line of Python each, in place of a command that trains."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src.launch.jobs import Task

MakeTask = Callable[..., Task]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Return `make(name, code, stage=0)`: done once the code has written the file NAME."""

    def make(name: str, code: str = "", stage: int = 0, lock: Path | None = None) -> Task:
        left = tmp_path / "left" / name
        left.parent.mkdir(exist_ok=True)
        write = f"open({str(left)!r}, 'a').write('x')"
        return Task(name, name, ("-c", f"{code or 'pass'}\n{write}"), stage, left.exists, lock=lock)

    return make
